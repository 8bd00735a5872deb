"""``banditmesh demo-news``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from banditmesh.cli.demonstration import demonstrate


def demo_news(
    seconds: Annotated[float, typer.Option(min=20, max=600, help="How long the town's day is.")] = 75.0,
    plot: Annotated[Path, typer.Option(help="Where to draw.")] = Path("demo-news.png"),
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep data and logs in this folder; absent: a temporary one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the town.")] = 1,
) -> None:
    """Run the whole mesh as a news feed: what readers near you click now, against what is popular.

    Starts Kafka, Valkey, an S3 store and the five services, of the CRS Engine two processes. A simulated town reads
    news whose value fades within seconds; some is breaking news that one quarter of the town reads. Exit code 0 only
    if every acknowledged impression became exactly one example, `density` earns more clicks than popularity with 95 %
    confidence, and both engines rank by a click within 5 seconds.
    """
    from banditmesh.demo.news import Options, run

    demonstrate(
        "news", directory, {"plot": plot}, lambda folder, console: run(Options(folder, seconds, plot, seed), console)
    )
