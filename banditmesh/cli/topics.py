"""``banditmesh topics``: create and verify the mesh's topics."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def topics(config: Annotated[Path, typer.Argument(help="The mesh.yaml.")] = Path("mesh.yaml")) -> None:
    """Create the topics that are missing, and verify those that exist, at [bold]BANDITMESH_KAFKA[/].

    Can be run again at any time: it never deletes a topic, nor changes one. Exit code 2 names every topic and setting
    that is not what the mesh needs, and a partition count that differs from mesh.yaml's.
    """
    from banditmesh.runtime.kafka.connect import say_nothing
    from banditmesh.runtime.kafka.topics import Topics, ensure_topics
    from banditmesh.runtime.logging import configure_logging
    from banditmesh.runtime.mesh import load_mesh
    from banditmesh.runtime.settings import UsesKafka, load_settings

    configure_logging("topics", level="info", style="auto")
    say_nothing()
    mesh = load_mesh(config)
    kafka = load_settings(UsesKafka).kafka
    names = Topics.named(mesh.kafka.topic_prefix)
    partitions = asyncio.run(
        ensure_topics(
            kafka,
            names,
            partitions=mesh.kafka.partitions,
            replication=mesh.kafka.replication,
            min_retention_s=mesh.join.window + mesh.join.slack,
            same_partitions=True,
        )
    )
    print(f"{', '.join(names)}: {partitions} partitions each, as the mesh needs them")
