"""``banditmesh policies``: what can stand under ``policy`` and ``explore`` in a mesh.yaml."""

from __future__ import annotations

import sys

from pydantic.fields import FieldInfo
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from banditmesh.bandits.durations import is_duration, written


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
                last = index == len(fields)
                table.add_row("", field, _default(info), escape(info.description or ""), end_section=last)
        console.print(table)


def _default(field: FieldInfo) -> str:
    return written(field.default) if is_duration(field) and field.default is not None else escape(str(field.default))


def _summary(kind: type) -> str:
    return escape((sys.modules[kind.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " "))
