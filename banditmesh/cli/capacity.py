"""``banditmesh capacity``: what a mesh for so many users costs."""

from __future__ import annotations

from typing import Annotated

import typer


def _count(text: str) -> int:
    from banditmesh.capacity import count

    try:
        return count(text)
    except ValueError as error:
        raise typer.BadParameter(f"expected a number such as 25000, 25k or 10M, got {text!r}") from error


def capacity(
    users: Annotated[int, typer.Option(parser=_count, help="Users who have candidates, such as 10M.")],
    impressions_per_day: Annotated[int, typer.Option(parser=_count, help="Contents shown in a day.")],
    peak_rps: Annotated[int, typer.Option(parser=_count, help="Selections a second at the peak.")],
    models: Annotated[int, typer.Option(min=1, help="Models that learn: placements times variants.")] = 2,
    values: Annotated[bool, typer.Option("--values", help="Print a values file for the Helm chart.")] = False,
) -> None:
    """Say how many cores, pods and GiB a mesh takes, out of figures that were measured."""
    from rich.console import Console
    from rich.table import Table

    from banditmesh import capacity as of

    demand = of.Demand(users, impressions_per_day, peak_rps, models)
    if values:
        print(of.values(demand), end="")
        return
    needed = of.plan(demand)
    table = Table("service", "busy cores at the peak", "pods", header_style="bold")
    for name, cores in needed.cores.items():
        table.add_row(name, f"{cores:.1f}", str(needed.replicas[name]))
    console = Console()
    console.print(table)
    console.print(f"Redis: {needed.redis_gib:,.1f} GiB of memory", highlight=False)
    console.print(
        f"Kafka: {needed.kafka_gib_a_day:,.1f} GiB a day, {needed.kafka_gib:,.0f} GiB on disk with "
        f"{of.KAFKA_REPLICAS} replicas; {needed.partitions} partitions",
        highlight=False,
    )
    for line in needed.beyond:
        console.print(f"Mind: {line}", highlight=False)
