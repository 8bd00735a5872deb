"""Writes ``docs/mesh-yaml.md`` from the models that validate ``mesh.yaml``: ``python tools/mesh_reference.py``.

A test compares the file with what this prints, so the reference cannot be behind the code.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from banditmesh.bandits.durations import is_duration, written
from banditmesh.bandits.registry import EXPLORATIONS, POLICIES
from banditmesh.runtime.mesh import Mesh

TARGET = Path(__file__).resolve().parents[1] / "docs" / "mesh-yaml.md"
EXAMPLE = Path(__file__).resolve().parents[1] / "banditmesh" / "quickstart" / "mesh.yaml"

_INTRODUCTION = """\
# mesh.yaml

The one file that all five services read: which services there are, what competes in which placement, how it is scored,
explored, rewarded. `banditmesh check mesh.yaml` validates it; an unknown key, a wrong value, a policy that does not
exist are errors that name the key, the value and what would be right. A service that is started with a wrong file ends
with exit code 2 and the same message.

*This page is made from the code by `tools/mesh_reference.py`.*

Durations are written `250ms`, `30s`, `10m`, `6h`, `7d`. Defaults suit a production of a few services; only `services`
and `placements` are needed.

"""


def reference() -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION, "```yaml\n", EXAMPLE.read_text(), "```\n\n", *_section("", Mesh, set())]
    parts.append("## Policies and explorations\n\n`banditmesh policies` prints the same on a terminal.\n\n")
    for title, models in (
        ("policy", {name: kind.Params for name, kind in POLICIES.items()}),
        ("explore", EXPLORATIONS),
    ):
        for name, model in models.items():
            parts += [f"### {title}: {name}\n\n", *_table(model), "\n"]
    return "".join(parts)


def _section(path: str, model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """Yield a section's table and those below it; a model that stands in several places (``seen``) comes once."""
    if model in seen:
        return
    seen.add(model)
    title = path or "The file"
    yield f"## {title}\n\n{_first_line(model)}\n\n"
    yield from _table(model)
    yield "\n"
    for name, field in model.model_fields.items():
        for key, inner in _models_in(field.annotation):
            yield from _section(".".join(filter(None, (path, name, key))), inner, seen)


def _table(model: type[BaseModel]) -> Iterator[str]:
    if not model.model_fields:
        yield "No parameters.\n"
        return
    yield "| key | default | meaning |\n|---|---|---|\n"
    for name, field in model.model_fields.items():
        yield f"| `{field.alias or name}` | {_default(field)} | {_meaning(field)} |\n"


def _meaning(field: FieldInfo) -> str:
    choices = [f"`{choice}`" for choice in _choices(field.annotation)]
    inner = next(iter(_models_in(field.annotation)), None)
    text = (field.description or (_first_line(inner[1]) if inner else "")).replace("|", "\\|")
    return f"{text} One of {', '.join(choices)}." if choices else text


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "see below" if field.default_factory else "**needed**"
    if field.default is None:
        return "none"
    if isinstance(field.default, list):
        return f"`[{', '.join(map(str, field.default))}]`"
    if is_duration(field):
        return f"`{written(field.default)}`"
    return f"`{field.default}`".lower() if isinstance(field.default, bool) else f"`{field.default}`"


def _models_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the models inside a type, with the key that leads to them: ``<name>`` inside a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
    elif get_origin(annotation) is list:
        yield from _models_in(get_args(annotation)[0])
    elif get_origin(annotation) is dict:
        yield from ((("<name>"), model) for _, model in _models_in(get_args(annotation)[1]))
    elif get_origin(annotation) in (Annotated, Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _first_line(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())


if __name__ == "__main__":
    TARGET.write_text(reference())
