"""``banditmesh check``: validate a mesh.yaml without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

_MOST_BOXED: Final = 500
"""Rows that make a table; to lay out more takes longer than to check them, and they are for ``grep`` and ``cut``."""


def check(config: Annotated[Path, typer.Argument(help="The file to check.")] = Path("mesh.yaml")) -> None:
    """Validate a [bold]mesh.yaml[/] and show what it says, in yellow what is valid and hardly meant.

    Exit code 2, and every wrong key by name, when it is not valid. Of more than 500 variants a line each, by tabs.
    """
    from banditmesh.runtime.doubts import doubts
    from banditmesh.runtime.mesh import load_mesh

    mesh = load_mesh(config)
    header = ("placement", "variant", "share", "policy", "model", "exploration")
    rows = []
    for name, placement in mesh.placements.items():
        variants = placement.experiment.variants
        total = sum(variant.weight for variant in variants.values())
        for variant_name, variant in variants.items():
            share = f"{variant.weight / total:.1%}"
            rows.append((name, variant_name, share, variant.policy_name, variant.model, variant.explore_name))
    console = Console()
    counts = f"services: {len(mesh.services)}, placements: {len(mesh.placements)}"
    console.print(Text(f"{config} is valid; {counts}"), soft_wrap=True)
    if len(rows) > _MOST_BOXED:
        for row in (header, *rows):
            typer.echo("\t".join(row))
    else:
        table = Table(*header, header_style="bold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for key, text in doubts(mesh):
        console.print(Text(f"{key}: {text}", "yellow"), soft_wrap=True)
    if mesh.access is None:
        open_to_all = "There is no access table: whoever reaches a port may call everything."
        console.print(Text(open_to_all, "yellow"), soft_wrap=True)
        return
    callers = Table("caller", "roles", "known by", "calls/s", header_style="bold")
    for name, caller in mesh.access.callers.items():
        known = {"spiffe": caller.spiffe, "dns": caller.dns, "key": caller.key_sha256}
        by = ", ".join(
            f"{kind} ({len(values)})" if len(values) > 1 else kind for kind, values in known.items() if values
        )
        rate = "" if caller.calls_per_s is None else f"{caller.calls_per_s:g}"
        callers.add_row(name, ", ".join(caller.roles), by, rate)
    console.print(callers)
