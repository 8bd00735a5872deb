"""The most popular contents of a placement, by the last snapshot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import service_key
from banditmesh.bandits.popularity import Popularity


@dataclass(frozen=True, eq=False)
class PopularContents:
    """The most popular first.

    Attributes:
        keys: uint64[n], content keys.
        services: uint64[n], their service keys.
        means: float32[n], the mean reward of each.
    """

    keys: NDArray[np.uint64]
    services: NDArray[np.uint64]
    means: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, policy: Popularity, size: int) -> PopularContents:
        """The ``size`` most popular contents whose name the snapshot has."""
        named = [(each.key, each.name[0], each.mean) for each in policy.top(size) if each.name is not None]
        return cls(
            np.array([key for key, _, _ in named], np.uint64),
            np.array([service_key(service) for _, service, _ in named], np.uint64),
            np.array([mean for _, _, mean in named], np.float32),
        )


NOTHING_POPULAR = PopularContents(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.float32))
