"""Hashes of two names, kept: the same few stand in row after row."""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from typing import Final

KEPT: Final = 1 << 18


class Known(dict[str, dict[str, int]]):
    """``known[first][second]`` is ``function(first, second)``, worked out once.

    Two dicts, for looking a name up in each takes a third of the time of an `lru_cache`, which makes a key of both.
    At most `kept` entries stay; with one more it starts anew, which costs less than remembering which was used last.
    """

    def __init__(self, function: Callable[[str, str], int], kept: int = KEPT) -> None:
        super().__init__()
        self._function = function
        self._kept = kept
        self._size = 0

    def __missing__(self, first: str) -> dict[str, int]:
        self.make_room()
        self[first] = found = _Seconds(intern(first), self)
        return found

    def make_room(self) -> None:
        """Counts one more entry."""
        self._size += 1
        if self._size > self._kept:
            self.clear()
            self._size = 1

    def work_out(self, first: str, second: str) -> int:
        """What is not known yet."""
        self.make_room()
        return self._function(first, second)


class _Seconds(dict[str, int]):
    def __init__(self, first: str, of: Known) -> None:
        super().__init__()
        self._first, self._of = first, of

    def __missing__(self, second: str) -> int:
        self[second] = found = self._of.work_out(self._first, second)
        return found
