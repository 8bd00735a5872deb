"""``banditmesh check``: validate a mesh.yaml without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def check(config: Annotated[Path, typer.Argument(help="The file to check.")] = Path("mesh.yaml")) -> None:
    """Validate a [bold]mesh.yaml[/] and show what it says. Exit code 2 and every wrong key by name when it is not
    valid."""
    from banditmesh.runtime.mesh import load_mesh

    mesh = load_mesh(config)
    table = Table("placement", "variant", "share", "policy", "model", "exploration", header_style="bold")
    for name, placement in mesh.placements.items():
        variants = placement.experiment.variants
        total = sum(variant.weight for variant in variants.values())
        for variant_name, variant in variants.items():
            share = f"{variant.weight / total:.1%}"
            table.add_row(name, variant_name, share, variant.policy_name, variant.model, variant.explore_name)
    console = Console()
    counts = f"services: {len(mesh.services)}, placements: {len(mesh.placements)}"
    console.print(Text(f"{config} is valid; {counts}"), soft_wrap=True)
    console.print(table)
