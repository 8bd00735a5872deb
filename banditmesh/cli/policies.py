"""``banditmesh policies``: what can stand under ``policy`` and ``explore`` in a mesh.yaml."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def policies() -> None:
    """List every policy and every exploration with its parameters: default and meaning."""
    from banditmesh.bandits.exploration import EXPLORATIONS
    from banditmesh.bandits.registry import POLICIES

    console = Console()
    for title, registry in (("policy", POLICIES), ("explore", EXPLORATIONS)):
        table = Table(title, "parameter", "default", "meaning", header_style="bold", title_justify="left")
        for name, kind in registry.items():
            fields = kind.Params.model_fields
            table.add_row(
                f"[bold]{name}[/]", "", "", (kind.__doc__ or "").strip().splitlines()[0], end_section=not fields
            )
            for index, (field, info) in enumerate(fields.items(), start=1):
                table.add_row("", field, str(info.default), info.description or "", end_section=index == len(fields))
        console.print(table)
