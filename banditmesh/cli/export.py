"""``banditmesh export``: what the mesh has learned from, as a decision log in one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from banditmesh.cli.archive import between, checked_kind, demand_known, with_store
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from banditmesh.archive.export import Writer
    from banditmesh.archive.layout import Kind
    from banditmesh.runtime.store import Store

app = typer.Typer(
    help="Write a [bold]decision log[/] out of archive or topic: what was shown, how probably, what came of it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Out = Annotated[Path, typer.Argument(help="The file: .jsonl, .jsonl.gz, of examples also .parquet.")]
Since = Annotated[str, typer.Option("--from", help="2026-11-29T14:00:00Z, 2026-11-29 (UTC), or how long ago: 7d.")]
Until = Annotated[str, typer.Option("--to", help="The same; what is later is left out.")]
Placements = Annotated[
    list[str] | None, typer.Option("--placement", help="Of this placement; several times for several. Absent: of all.")
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="BANDITMESH_STORE",
        help="s3://bucket/prefix?…, or file:///folder. Absent: with --topic alone.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("examples")
def examples(
    out: Out,
    since: Since,
    until: Until = "0s",
    placement: Placements = None,
    store: StoreUrl = None,
    topic: Annotated[
        bool,
        typer.Option("--topic", help="Out of Kafka (BANDITMESH_KAFKA) instead: newer, and only as old as it keeps."),
    ] = False,
    config: Annotated[
        Path, typer.Option(envvar="BANDITMESH_CONFIG", help="mesh.yaml, with --topic for kafka.topic_prefix.")
    ] = Path("mesh.yaml"),
    as_json: Json = False,
) -> None:
    """Write every example of a span of time: what was shown to whom, by which variant, and what came of it."""
    start, end = between(since, until)
    count = (
        _of_topic(out, start, end, placement, config)
        if topic
        else _of_archive(out, "examples", start, end, placement, store)
    )
    _say(out, count, as_json)


@app.command("decisions")
def decisions(
    out: Out,
    since: Since,
    until: Until = "0s",
    placement: Placements = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Write the sampled decisions of a span of time, with all their candidates: what `replay` judges any policy on."""
    start, end = between(since, until)
    _say(out, _of_archive(out, checked_kind("decisions"), start, end, placement, store), as_json)


def _of_archive(
    out: Path, kind: Kind, start: datetime, end: datetime, wanted: list[str] | None, url: str | None
) -> int:
    from banditmesh.archive.export import placements, rows, written

    if not url:
        raise InvalidArgument("which store has the archive?", field="--store", hint="set BANDITMESH_STORE")

    async def run(store: Store) -> int:
        known = await placements(store, kind)
        demand_known(wanted, known)
        count = 0
        with written(out, kind) as file:
            for each in wanted or known:
                async for batch in rows(store, kind, each, start, end):
                    file.write(batch)
                    count += len(batch)
        return count

    return with_store(url, run)


def _of_topic(out: Path, start: datetime, end: datetime, wanted: list[str] | None, config: Path) -> int:
    import asyncio

    from banditmesh.archive.export import of_example, written
    from banditmesh.runtime.kafka.connect import say_nothing
    from banditmesh.runtime.kafka.topic_check import Topics
    from banditmesh.runtime.mesh import load_mesh
    from banditmesh.runtime.settings import UsesKafka, load_settings
    from services.learner.archiving.topic import examples as read

    say_nothing()
    mesh = load_mesh(config)
    demand_known(wanted, list(mesh.placements))
    kafka = load_settings(UsesKafka).kafka
    user_id = _pseudonyms() if mesh.archive.user_ids == "keyed" else None

    async def run(file: Writer) -> int:
        count = 0
        topic = Topics.named(mesh.kafka.topic_prefix).examples
        async for placement, batch in read(kafka, topic, start, end, user_id):
            if wanted is None or placement in wanted:
                file.write([of_example(row, placement) for row in batch.to_pylist()])
                count += len(batch)
        return count

    with written(out, "examples") as file:
        return asyncio.run(run(file))


def _pseudonyms() -> Callable[[str], str]:
    import os

    from banditmesh.archive.pseudonym import pseudonyms

    key = os.environ.get("BANDITMESH_ARCHIVE_KEY")
    if not key:
        raise FailedPrecondition(
            "mesh.yaml says archive.user_ids: keyed, and the topic has plain ids", hint="set BANDITMESH_ARCHIVE_KEY"
        )
    return pseudonyms(key)


def _say(out: Path, rows: int, as_json: bool) -> None:
    print(json.dumps({"out": str(out), "rows": rows}) if as_json else f"{rows:,} rows in {out}")
