"""``banditmesh demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from banditmesh.cli.demonstration import demonstrate


def demo(
    visits: Annotated[int, typer.Option(min=100, help="How many visits.")] = 24_000,
    ratings: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A table of ratings: user, item, rating, timestamp. Absent: MovieLens 100k.",
        ),
    ] = None,
    plot: Annotated[Path, typer.Option(help="Where to draw the click rates.")] = Path("demo-report.png"),
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep data and logs in this folder; absent: a temporary one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the teams' random proposals.")] = 1,
    json: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where to write the result for a program to read; absent: nowhere."),
    ] = None,
    endpoints: Annotated[
        str | None,
        typer.Option(
            help="Run against a mesh that exists: importer=host:port,engine=…,tracker=…; BANDITMESH_KAFKA and "
            "BANDITMESH_STORE say where its examples and files are. Absent: start one."
        ),
    ] = None,
) -> None:
    """Run the whole mesh on real people's film ratings and see it learn.

    Starts Kafka, Valkey, an S3 store and the five services, imports what four service teams propose, lets people visit
    in the order of
    their real ratings, and compares the learned policy with random choice. Exit code 0 only if every acknowledged
    impression became exactly one example and the learned policy is better with 95 % confidence.
    """
    from banditmesh.demo.run import Options, run
    from banditmesh.demo.target import parse_endpoints

    targets = parse_endpoints(endpoints) if endpoints else None
    demonstrate(
        "demo",
        directory,
        {"plot": plot, "json": json},
        lambda folder, console: run(Options(folder, visits, ratings, plot, seed, json, targets), console),
    )
