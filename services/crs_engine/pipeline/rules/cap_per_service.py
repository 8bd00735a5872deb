"""No more than so many contents of one service on a list."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime.mesh import Placement
from services.crs_engine.pipeline.batch import Mask, RuleConstraint
from services.crs_engine.pipeline.rules.base import Draw


class CapPerService:
    """Where the placement has ``rules.cap_per_service``: ``most`` contents of each service, whoever proposes them."""

    name: ClassVar[str] = "cap_per_service"

    def __init__(self, most: int) -> None:
        self._most = most

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Rule.enable`."""
        params = placement.rules.cap_per_service
        return None if params is None else cls(params.most)

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        return None if draw.slate.group.count <= self._most else _Cap(self._most, draw)


class _Cap:
    """The rule for one draw: how many contents of each service each user's list has, against the cap."""

    def __init__(self, most: int, draw: Draw) -> None:
        placement, placed = draw.view.placement, draw.slate.sources
        self._most = most
        self._names = placement.services
        self._owners = draw.pool.owners
        self._services = placement.service_numbers[draw.pool.sources]
        self._n_users = len(placed)
        self._placed = self._counts(placement.service_numbers[placed], placed >= 0)

    def blocks(self, before: NDArray[np.int64]) -> Mask | None:
        """See `Constraint.blocks`."""
        full = self._on_list(before) >= self._most
        return full[self._owners, self._services] if full.any() else None

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        service = self._services[at]
        there = self._on_list(before)[self._owners[at], service]
        return f"the list has {there} of {self._names[service]} before it, and cap_per_service allows {self._most}"

    def _on_list(self, before: NDArray[np.int64]) -> NDArray[np.int64]:
        """``int64[n_users, n_services]``: the contents of each service on each user's list."""
        return self._placed + self._counts(self._services[before], before >= 0)

    def _counts(self, services: NDArray[np.int64], there: Mask) -> NDArray[np.int64]:
        """``int64[n_users, n_services]``: how often each service stands in each row of ``services``
        (int64[n_users, n]), where something is there (bool, the same shape)."""
        rows, columns = np.nonzero(there)
        cells = rows * len(self._names) + services[rows, columns]
        counts = np.bincount(cells, minlength=self._n_users * len(self._names))
        return counts.reshape(self._n_users, len(self._names))
