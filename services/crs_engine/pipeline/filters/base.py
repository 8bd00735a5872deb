"""What a filter is, and what it sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing
from services.crs_engine.catalog import ABSENT, Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.pipeline.batch import Pool, Users

Mask = NDArray[np.bool_]
_SALTS = hashing.mix64(np.arange(1, 1025, dtype=np.uint64))


@dataclass(frozen=True, eq=False)
class View:
    """A hydrated pool with all that is known around it."""

    placement: CompiledPlacement
    users: Users
    pool: Pool
    catalog: Catalog
    now_s: float

    @cached_property
    def flags(self) -> NDArray[np.uint8]:
        """uint8[n]: of the contents; ABSENT also where the catalog has no row."""
        return np.where(self.pool.rows >= 0, self.catalog.flags(self.pool.rows), ABSENT)

    @cached_property
    def salts(self) -> NDArray[np.uint64]:
        """uint64[n_users]: a hash of each user's place, to be xor-ed to keys that must only match within one user."""
        n = len(self.pool.offsets) - 1
        return _SALTS[:n] if n <= len(_SALTS) else hashing.mix64(np.arange(1, n + 1, dtype=np.uint64))

    @cached_property
    def salted_contents(self) -> NDArray[np.uint64]:
        """uint64[n]: the content keys, salted with their user."""
        return self.pool.contents ^ np.repeat(self.salts, self.pool.counts)

    @cached_property
    def ordered_contents(self) -> NDArray[np.uint64]:
        """uint64[n]: the salted content keys, ascending."""
        return np.sort(self.salted_contents)

    def matches(
        self,
        salted: NDArray[np.uint64],
        ordered: NDArray[np.uint64],
        owners: NDArray[np.int64],
        keys: NDArray[np.uint64],
    ) -> Mask | None:
        """bool[n]: which salted keys (uint64[n]) are among the keys (uint64[m]) that belong to the same users
        (``owners``: int64[m]); None when none is. ``ordered``: the salted keys, ascending."""
        wanted = keys ^ self.salts[owners]
        # The few are looked up among the many, which is quick and mostly finds nothing; only what was found is then
        # looked for the other way round.
        hits = np.sort(wanted[_among(wanted, ordered)])
        return _among(salted, hits) if len(hits) else None


def _among(keys: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> Mask:
    """bool[n]: which of the keys (uint64[n]) are in a list (uint64[m], ascending, not empty)."""
    found: Mask = ordered.take(np.searchsorted(ordered, keys), mode="clip") == keys
    return found


class Filter(Protocol):
    """Takes candidates out. Must not depend on the order of users, nor on who else is in the batch."""

    name: ClassVar[str]
    on_fallback: ClassVar[bool]
    """Whether the fallback's contents go through it too."""

    def removes(self, view: View) -> Mask | None:
        """bool[n]: which candidates must go; None: none of them, found out at less cost."""
        ...

    def because(self, view: View, at: int) -> str:
        """Why the candidate at that place in the pool must go, in words."""
        ...


def utc(seconds: float) -> str:
    """A moment for people."""
    return f"{np.datetime64(int(seconds), 's')}Z"
