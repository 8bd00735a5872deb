"""What every section of ``mesh.yaml`` is, and what several of them hold."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from banditmesh.duplicates import first_twice

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Section(BaseModel):
    """Closed (an unknown key is an error), frozen, and strict: ``partitions: "4"`` and ``partitions: yes`` are
    mistakes, not numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit")
    return value


Name = Annotated[str, AfterValidator(_name)]
Share = Annotated[float, Field(ge=0, le=1)]


def each_once(names: list[str]) -> list[str]:
    """A list without a name that stands twice. Raises ValueError."""
    twice = first_twice(names)
    if twice is not None:
        raise ValueError(f"{twice!r} stands twice")
    return names
