"""``banditmesh embed``: vectors of contents out of their words."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from banditmesh.runtime.errors import InvalidArgument

if TYPE_CHECKING:
    from banditmesh.decisions.row import Decision
    from banditmesh.fit.embedding import Fitted

app = typer.Typer(help="Vectors of contents, for models that retrieve by likeness.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``fit`` a command of its own."""


@app.command()
def fit(
    contents: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help='JSON lines: {"id": "a1", "title": "…", "body": "…", "attributes": {"genre": ["war"]}}.',
        ),
    ],
    store: Annotated[str, typer.Option(help="Where the mesh's snapshots are: s3://bucket/prefix or file:///folder.")],
    dimensions: Annotated[int, typer.Option(min=2, max=512, help="As vectors.dimensions of mesh.yaml.")] = 64,
    clicks: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A decision log: let what the same users open lie together. Absent: by the words alone.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the randomised decomposition.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Fit the text model that the importer makes vectors with ([bold]vectors: {embedding: text}[/]), and publish it.

    Without a log it knows which words stand together; with one, whose readers are the same, which is what retrieval is
    after. Importers take a new model up within 10 s; contents get their new vectors at their next refresh.
    """
    from banditmesh.fit.embedding import fit as run

    texts = dict(_texts(contents))
    began = time.monotonic()
    fitted = run(texts, dimensions, opened=None if clicks is None else _opened(clicks), seed=seed)
    version = asyncio.run(_publish(fitted, store))
    found = {
        "contents": fitted.contents,
        "opened": fitted.opened,
        "dimensions": dimensions,
        "explained": round(fitted.explained, 4),
        "seconds": round(time.monotonic() - began, 3),
        "version": version,
    }
    if as_json:
        print(json.dumps(found))
        return
    of_log = f", {fitted.opened} of them with clicks" if clicks is not None else ""
    Console().print(
        f"{fitted.contents} contents{of_log}: {dimensions} dimensions hold {fitted.explained:.1%}. Published as "
        f"version {version} in {found['seconds']:.1f} s; refresh what is imported already (RefreshContents).",
        highlight=False,
        soft_wrap=True,
    )


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    from banditmesh.json_keys import Decoder
    from banditmesh.retrieval.text import text_of

    decoder = Decoder()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = decoder.decode(line.decode())
                if decoder.twice is not None:
                    raise ValueError(f"the key {decoder.twice!r} stands twice")
                attributes = {name: _listed(values) for name, values in row.get("attributes", {}).items()}
                yield str(row["id"]), text_of(str(row.get("title", "")), str(row.get("body", "")), attributes)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InvalidArgument(
                    f"{path}:{number}: is no content: {error!r}", hint='a line is {"id": "a1", "title": "…"}'
                ) from error


def _listed(values: Any) -> list[str]:
    return [str(each) for each in values] if isinstance(values, list) else [values] if isinstance(values, str) else []


def _opened(log: Path) -> Iterator[list[str]]:
    """What each user of a decision log opened."""
    from collections import defaultdict

    from banditmesh.decisions.reader import read

    of_user: dict[str, list[str]] = defaultdict(list)
    for decision in read(log):
        if decision.user is not None:
            of_user[decision.user] += opened_of(decision)
    yield from of_user.values()


def opened_of(decision: Decision) -> list[str]:
    """The ids of what was opened: what was clicked where the log has reactions, else what earned more than 0."""
    if decision.shown is None:
        return [each for each, reward in zip(decision.ids, decision.outcomes, strict=True) if reward and reward > 0]
    if decision.reactions is not None:
        opened = "click" in decision.reactions
    else:
        opened = decision.reward is not None and decision.reward > 0
    return [decision.ids[decision.shown]] if opened else []


async def _publish(fitted: Fitted, url: str) -> int:
    from banditmesh.runtime.snapshots import Manifest, Snapshots
    from banditmesh.runtime.store import open_store
    from banditmesh.runtime.text_snapshots import TEXT_MODEL, VECTORS

    store = open_store(url)
    try:
        snapshots = Snapshots(store, None)
        manifest = Manifest(
            VECTORS, TEXT_MODEL, "text", {"dimensions": fitted.model.dimensions}, 0, int(time.time() * 1000), 0, {}, {}
        )
        before = await snapshots.pointer(VECTORS, TEXT_MODEL)
        return (await snapshots.publish(manifest, fitted.model.tensors(), after=before)).version
    finally:
        await store.close()
