"""``banditmesh convert``: logs that people have, as decision logs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text


class FormatName(StrEnum):
    """What the log is."""

    vw_dsjson = "vw-dsjson"
    vw_text = "vw-text"
    obd = "obd"
    movielens = "movielens"
    mind = "mind"
    yahoo_r6 = "yahoo-r6"
    criteo = "criteo"


def convert(
    log: Annotated[Path, typer.Argument(help="A file (also .gz, .bz2, .zst, .xz), or the folder of a data set.")],
    out: Annotated[Path, typer.Argument(help="The decision log: .jsonl or .jsonl.gz.")],
    source: Annotated[FormatName, typer.Option("--from", help="What the log is.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a decision log of a log in another format, for [bold]replay[/] and [bold]fit[/].

    What could not be used is counted, with the reason.
    """
    from banditmesh.convert.log import Log
    from banditmesh.convert.registry import convert as run

    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task(f"Converting {log}", total=1.0)
        given = Log(log, lambda share: progress.update(task, completed=share))
        rows = run(source.value, given, out)
    skipped = sorted(given.skipped.items(), key=lambda each: -each[1].count)
    if as_json:
        told, noted = (
            {reason: {"count": each.count, "first": each.first} for reason, each in found.items()}
            for found in (dict(skipped), given.noted)
        )
        print(json.dumps({"out": str(out), "rows": rows, "skipped": told, "noted": noted}))
        return
    console = Console()
    console.print(Text(f"{rows:,} decisions in {out}"), soft_wrap=True)
    for title, found in (("not converted", skipped), ("converted, but", list(given.noted.items()))):
        table = Table(title, "count", "the first", header_style="bold")
        for reason, each in found:
            table.add_row(Text(reason), f"{each.count:,}", Text(each.first))
        if found:
            console.print(table)
