"""One measured number beside its reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Figure:
    """`met` is None for a number that stands for itself, such as a peer's."""

    check: str
    what: str
    value: float
    reference: str = ""
    met: bool | None = None


class Check(Protocol):
    """A module of this package."""

    __doc__: str

    def run(self, scratch: Path, data: Path) -> Iterator[Figure]:
        """Measures; may write into the folder `scratch`, and finds the data that the project brings in `data`."""
        ...


def report(sections: Sequence[tuple[str, str, Sequence[Figure]]]) -> str:
    """The figures as Markdown, check after check: (name, what it does, its figures)."""
    lines = [
        "# How well it learns",
        "",
        "Made by `make bench-learning`; everything ran on one core, one after the other.",
    ]
    for name, what, figures in sections:
        lines += ["", f"## {name}", "", what, "", "| what | value | reference | met |", "|---|---|---|---|"]
        for each in figures:
            met = {None: "", True: "yes", False: "**no**"}[each.met]
            lines.append(f"| {each.what} | {each.value:.5g} | {each.reference} | {met} |")
    return "\n".join(lines) + "\n"
