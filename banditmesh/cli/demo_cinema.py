"""``banditmesh demo-cinema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from banditmesh.cli.demonstration import demonstrate


def demo_cinema(
    visits: Annotated[int, typer.Option(min=2, max=50, help="Of each newcomer.")] = 6,
    ratings: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A table of ratings: user, item, rating, timestamp. Absent: MovieLens 100k.",
        ),
    ] = None,
    plot: Annotated[Path, typer.Option(help="Where to draw the clicks by feedback.")] = Path("cinema-report.png"),
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep data and logs in this folder; absent: a temporary one.")
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where to write the result for a program to read; absent: nowhere."),
    ] = None,
) -> None:
    """A cinema's shelf on real ratings: ranked lists by a blend of popularity and taste, with rules and a cache.

    Starts Kafka, Valkey and the five services, fits taste on those who came first, and lets newcomers visit. Exit code
    0 only if the blend is better than popularity with 95 % confidence, every acknowledged impression became exactly one
    example, every list keeps its rules, and the cache was of use.
    """
    from banditmesh.demo.cinema import Options, run

    demonstrate(
        "cinema",
        directory,
        {"plot": plot, "json": json},
        lambda folder, console: run(Options(folder, visits, ratings, plot, json), console),
    )
