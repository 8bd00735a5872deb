"""An example of each command, at the end of its help."""

from __future__ import annotations

from typing import Final

import typer

EXAMPLES: Final = {
    "up": "--config mesh.yaml --dir .banditmesh",
    "demo": "--plot demo-report.png",
    "demo-cinema": "--visits 6",
    "demo-news": "--seconds 75",
    "check": "mesh.yaml",
    "capacity": "--users 10M --impressions-per-day 25M --peak-rps 2000",
    "torture": "--minutes 25 --report torture.md",
    "topics": "mesh.yaml",
    "verify": "--engine dns:///mesh-engine:50052 --tracker dns:///mesh-tracker:50053 --placement home",
    "policies": "",
    "replay": "log.jsonl --policy linucb:alpha=0.5 --policy popularity",
    "fit": "log.jsonl --policy fm:factors=8 --save models --placement home",
    "convert": "--from vw-dsjson log.json log.jsonl.gz",
    "evaluate": "--placement home --policy linucb:alpha=0.5 --store s3://bucket/mesh --from 7d",
    "experiment": "home --learner dns:///mesh-learner:50055",
    "inspect": "verify file:///store/models/home/linear-1a2b3c4d",
    "dead-letters": "--kafka localhost:9092 --last 10",
    "als fit": "log.jsonl --policy als:factors=64 --save s3://bucket/mesh --placement home",
    "archive compact": "--store s3://bucket/mesh",
    "archive expire": "--store s3://bucket/mesh --keep 400d",
    "archive forget": "user-17 --store s3://bucket/mesh",
    "archive files": "home --store s3://bucket/mesh --from 7d",
    "embed fit": "contents.jsonl --store s3://bucket/mesh",
    "export examples": "log.jsonl.gz --store s3://bucket/mesh --from 7d",
    "export decisions": "log.jsonl.gz --store s3://bucket/mesh --from 7d --placement home",
}
"""Of each command, by its words: what may follow them."""


def show_examples(app: typer.Typer, words: str = "") -> None:
    """Put each command's example under its help."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        called = f"{words}{name}"
        command.epilog = f"Such as: banditmesh {called} {EXAMPLES[called]}".rstrip()
    for group in app.registered_groups:
        if group.typer_instance is not None:
            show_examples(group.typer_instance, f"{words}{group.name} ")
