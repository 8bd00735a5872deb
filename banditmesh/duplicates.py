"""Names that stand twice, found in one walk: lists of names come from files of others, and may be long. Nothing is
imported here.
"""

from __future__ import annotations

from collections.abc import Iterable


def first_twice(names: Iterable[str]) -> str | None:
    """The first name that stands there for the second time; None: each stands once."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
