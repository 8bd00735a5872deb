"""``banditmesh verify``: one selection through the whole loop of a mesh that runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def verify(
    engine: Annotated[str, typer.Option(help="The engine's gRPC target, such as dns:///mesh-engine:50052.")],
    tracker: Annotated[str, typer.Option(help="The tracker's gRPC target.")],
    placement: Annotated[str, typer.Option(help="Which placement to ask; one of its own, best.")],
    user: Annotated[str, typer.Option(help="Whom to ask for; nobody, best.")] = "banditmesh-test",
    importer: Annotated[
        str | None, typer.Option(help="The importer's gRPC target, with --import-into. Absent: no import.")
    ] = None,
    import_into: Annotated[
        str | None,
        typer.Option(
            help="service/logic whose mapping is replaced by one with a content for the user; needs an S3 store. "
            "Absent: none."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for all of it.")] = 120.0,
    config: Annotated[Path, typer.Argument(help="The mesh.yaml of the mesh.")] = Path("mesh.yaml"),
) -> None:
    """Prove that a mesh keeps its promise, once around the loop.

    A content is selected, shown and clicked, an example comes out, and the engine loads a model that has learned from
    it.
    BANDITMESH_KAFKA and BANDITMESH_STORE say where the mesh's examples and files are. Exit code 0 only if all of it
    happened in time.
    """
    from banditmesh.demo.target import existing_target
    from banditmesh.runtime.errors import InvalidArgument
    from banditmesh.runtime.kafka.connect import say_nothing
    from banditmesh.runtime.mesh import load_mesh
    from banditmesh.verification import Loop

    if (importer is None) != (import_into is None):
        raise InvalidArgument("--importer and --import-into go together", field="--import-into", value=import_into)
    say_nothing()
    target = existing_target({"importer": importer or "", "engine": engine, "tracker": tracker})
    prefix = load_mesh(config).kafka.topic_prefix
    asyncio.run(Loop(target, f"{prefix}examples", placement, user, say=print).run(import_into, timeout))
