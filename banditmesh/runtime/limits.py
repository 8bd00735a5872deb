"""How long the texts that callers send may be: one limit for each kind, applied before anything else is done."""

from __future__ import annotations

import difflib
import functools
import heapq
import itertools
from collections.abc import Collection
from typing import Final

from banditmesh.lengths import MAX_NAME_BYTES
from banditmesh.runtime.errors import InvalidArgument

_LOOKED_AT: Final = 8
"""Names that are compared letter by letter."""


def fits(text: str, most_bytes: int) -> bool:
    """Whether a text has at most so many bytes of UTF-8. A character has 1 to 4: most texts need not be encoded."""
    length = len(text)
    return length <= most_bytes and (4 * length <= most_bytes or len(text.encode()) <= most_bytes)


def check_text(field: str, text: str, most_bytes: int, *, hint: str | None = None, optional: bool = False) -> None:
    """Raise InvalidArgument when a text is too long, or empty unless it is ``optional``."""
    if not text and not optional:
        raise InvalidArgument(f"{field.rpartition('.')[2]} is empty", field=field, hint=hint)
    if not fits(text, most_bytes):
        raise InvalidArgument(
            f"{field.rpartition('.')[2]} is longer than {most_bytes} bytes", field=field, value=text, hint=hint
        )


def closest(name: str, known: Collection[str]) -> str | None:
    """The known name that ``name`` may have been meant to be; None when there is none, or ``name`` is too long to be a
    name at all: the search takes time with the product of the lengths, so only the few that share most pairs of letters
    are looked at."""
    if not fits(name, MAX_NAME_BYTES):
        return None
    pairs = _pairs(name)
    alike = heapq.nlargest(_LOOKED_AT, known, key=lambda each: len(pairs & _pairs(each)) - len(each) / 1000)
    close = difflib.get_close_matches(name, alike, n=1)
    return close[0] if close else None


@functools.lru_cache(maxsize=8192)
def _pairs(name: str) -> frozenset[str]:
    """Letters side by side in a name, and each by itself, for names of few."""
    return frozenset((*name, *map("".join, itertools.pairwise(name))))
