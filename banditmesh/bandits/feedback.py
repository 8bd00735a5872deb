"""What users did of late, for policies that work a user out at the request: flat arrays, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments

KINDS: Final = ("target", "click", "dwell", "rating", "dislike")
"""What a user can have done with a content; the number of a kind is its place here."""


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    """The remembered feedback of the users of n decisions; decision i's owns offsets[i]:offsets[i + 1].

    Attributes:
        offsets: int64[n_decisions + 1].
        contents: uint64[m], content keys; one may stand several times.
        kinds: int64[m], places in `KINDS`.
        amounts: float32[m]: seconds of a dwell, stars of a rating, 1 of the others.
        counts: int64[n_decisions], how often the user ever gave feedback, which may be more than is remembered.
    """

    offsets: NDArray[np.int64]
    contents: NDArray[np.uint64]
    kinds: NDArray[np.int64]
    amounts: NDArray[np.float32]
    counts: NDArray[np.int64]

    @classmethod
    def none(cls, n: int) -> Self:
        """Of n users of whom nothing is known."""
        nothing = np.zeros(n + 1, np.int64)
        return cls(nothing, np.zeros(0, np.uint64), nothing[:0], np.zeros(0, np.float32), nothing[:n])

    @classmethod
    def of(
        cls,
        owners: NDArray[np.int64],
        contents: NDArray[np.uint64],
        kinds: NDArray[np.int64],
        amounts: NDArray[np.float32],
        counts: NDArray[np.int64],
    ) -> Self:
        """From events in any order; `owners`: int64[m], the decision of each."""
        order = np.argsort(owners, kind="stable")
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(np.bincount(owners, minlength=len(counts)), out=offsets[1:])
        return cls(offsets, contents[order], kinds[order], amounts[order], counts)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def owners(self) -> NDArray[np.int64]:
        """int64[m]: the decision of each event."""
        return segments.owners(self.offsets)

    def part(self, start: int, stop: int) -> Feedback:
        """The decisions start:stop."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Feedback(
            self.offsets[start : stop + 1] - first,
            self.contents[first:last],
            self.kinds[first:last],
            self.amounts[first:last],
            self.counts[start:stop],
        )
