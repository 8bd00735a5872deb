"""The mean of where a policy's estimates have been lately, which is nearer to the optimum than where they are.

Steps on mini-batches end up circling the optimum; the mean over the circle is its centre (Polyak and Juditsky 1992;
over passes, as here: Izmailov et al. 2018, "Averaging weights leads to wider optima").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashed import HashedPolicy

TICKS_PER_PASS = 16
_WINDOW = 2 * TICKS_PER_PASS


class Averaging:
    """A running mean over the last two passes or so, of a policy that finds its estimates step by step."""

    def __init__(self) -> None:
        self._mean: list[NDArray[Any]] = []
        self._generation = -1
        self._ticks = 0

    def tick(self, policy: HashedPolicy) -> None:
        """Takes in where the estimates are now. Starts again when features came or went, which moves the rows."""
        if policy.generation != self._generation:
            self._generation, self._ticks = policy.generation, 0
            self._mean = [np.zeros_like(estimate) for estimate in policy.estimates()]
        self._ticks += 1
        share = 1.0 / min(self._ticks, _WINDOW)
        for mean, estimate in zip(self._mean, policy.estimates(), strict=True):
            mean += share * (estimate - mean)

    @contextmanager
    def instead(self, policy: HashedPolicy) -> Iterator[None]:
        """The policy with the mean in the place of its estimates; afterwards it learns on from where they were."""
        usable = self._ticks and policy.generation == self._generation
        kept = [estimate.copy() for estimate in policy.estimates()] if usable else []
        self._put(policy, self._mean if usable else [])
        yield
        self._put(policy, kept)

    @staticmethod
    def _put(policy: HashedPolicy, values: list[NDArray[Any]]) -> None:
        for estimate, value in zip(policy.estimates(), values, strict=False):
            estimate[...] = value
