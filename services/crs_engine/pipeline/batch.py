"""What travels through the pipeline: a batch is a few groups, a group is flat arrays with offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine.compiled_placement import CompiledPlacement

FALLBACK_SOURCE = -1
"""In ``Pool.sources``: proposed by the placement's fallback."""


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """A request for a selection; what is wrong with it was found before."""

    placement: str
    user_id: str
    context: Mapping[str, str]
    count: int = 1
    """How many contents are wanted; more than one: a ranked list."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The requests of a batch that take the same way: one placement, one count. Users of one variant stand together.

    Attributes:
        positions: Of the requests in the batch.
        variants: int64[n_users], ascending, positions in ``placement.variants``.
    """

    placement: CompiledPlacement
    count: int
    requests: Sequence[SelectionRequest]
    positions: Sequence[int]
    variants: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.requests)

    def by_variant(self) -> list[tuple[int, slice]]:
        """Each variant that somebody is in, and where its users stand."""
        borders = np.flatnonzero(np.diff(self.variants)) + 1
        starts = [0, *borders.tolist()]
        return [
            (int(self.variants[start]), slice(start, end))
            for start, end in zip(starts, [*starts[1:], len(self)], strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """What the store said of a group's users.

    Attributes:
        reached: Whether it said anything; False: it is away, and all of this is empty.
        profiles: JSON of each profile; empty where there is none.
        profile_rows: int64[n_users], of the placement's ``UserFeatures``.
        states: Of all users.
        muted_until_s: float64[n_users], until when the slot stays empty after a mute; 0 where it does not.
    """

    reached: bool
    profiles: Sequence[bytes]
    profile_rows: NDArray[np.int64]
    states: UserRecords
    muted_until_s: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pool:
    """Candidates of all users of a group, flat: user i owns offsets[i]:offsets[i + 1].

    Attributes:
        offsets: int64[n_users + 1].
        contents: uint64[n], content keys.
        services: uint64[n], service keys.
        sources: int64[n], positions in ``placement.sources``, or :data:`FALLBACK_SOURCE`.
        rows: int64[n], of the catalog; -1 where the content is not known. Empty before hydration.
    """

    offsets: NDArray[np.int64]
    contents: NDArray[np.uint64]
    services: NDArray[np.uint64]
    sources: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.contents)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """int64[n]: the user of each candidate."""
        return segments.owners(self.offsets)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """int64[n_users]."""
        return segments.lengths(self.offsets)

    def keep(self, mask: NDArray[np.bool_]) -> Pool:
        """Those of ``mask`` (bool[n])."""
        if mask.all():
            return self
        return Pool(
            segments.kept_offsets(self.offsets, mask),
            self.contents[mask],
            self.services[mask],
            self.sources[mask],
            self.rows[mask],
        )
