"""``banditmesh policies``: what can stand under ``policy`` and ``explore`` in a mesh.yaml."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table


def policies() -> None:
    """List every policy and every exploration with its parameters: default and meaning."""
    from banditmesh.bandits.registry import EXPLORATIONS, POLICIES

    console = Console()
    parameters = {name: kind.Params for name, kind in POLICIES.items()}
    for title, registry, models in (("policy", POLICIES, parameters), ("explore", EXPLORATIONS, EXPLORATIONS)):
        table = Table(title, "parameter", "default", "meaning", header_style="bold")
        for name, kind in registry.items():
            fields = models[name].model_fields
            table.add_row(f"[bold]{name}[/]", "", "", _summary(kind), end_section=not fields)
            for index, (field, info) in enumerate(fields.items(), start=1):
                table.add_row("", field, str(info.default), info.description or "", end_section=index == len(fields))
        console.print(table)


def _summary(kind: type) -> str:
    return (sys.modules[kind.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
