"""What the change stream said of contents: which of them are to be read, and which reads it has overtaken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_NEW: Final = 10_000
"""So many contents that were announced and not read yet are noted at most; the oldest are forgotten."""


class Reading:
    """A read of contents that is under way: what was announced as changed since it began may have been read before the
    change."""

    def __init__(self) -> None:
        self.everything = False
        self.changed: set[int] = set()

    def overtaken(self, keys: list[int]) -> NDArray[np.uint64]:
        """``uint64[n]``: which of the keys have to be read again."""
        return np.array([key for key in keys if self.everything or key in self.changed], np.uint64)


class Announcements:
    """See the module.

    Attributes:
        losses: How often announcements may have been lost, ever.
    """

    def __init__(self) -> None:
        self.losses = 0
        self._readings: list[Reading] = []
        self._new: dict[int, None] = {}

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """While contents are read."""
        reading = Reading()
        self._readings.append(reading)
        try:
            yield reading
        finally:
            self._readings.remove(reading)

    def changed(self, keys: NDArray[np.uint64] | None) -> None:
        """These contents (``uint64[n]``) have changed; None: perhaps all, and perhaps others have come."""
        for reading in self._readings:
            reading.everything |= keys is None
            reading.changed.update([] if keys is None else keys.tolist())
        if keys is None:
            self.losses += 1

    def note(self, keys: NDArray[np.uint64]) -> None:
        """Have :meth:`take_new` give these (``uint64[n]``)."""
        self._new.update(dict.fromkeys(keys.tolist()))
        for key in list(self._new)[: max(len(self._new) - MOST_NEW, 0)]:
            del self._new[key]
            self.losses += 1

    def take_new(self, most: int) -> NDArray[np.uint64]:
        """``uint64[n]``: keys that were noted, the latest first; they are forgotten by this."""
        taken = list(self._new)[: -most - 1 : -1]
        for key in taken:
            del self._new[key]
        return np.array(taken, np.uint64)

    def put_back(self, keys: NDArray[np.uint64]) -> None:
        """Have :meth:`take_new` give these (``uint64[n]``), which could not be read, after what has come since."""
        self._new = {**dict.fromkeys(keys[::-1].tolist()), **self._new}
