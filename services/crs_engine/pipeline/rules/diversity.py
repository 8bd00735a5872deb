"""A content that resembles what stands on the list already loses some of its score.

Maximal marginal relevance (Carbonell and Goldstein 1998, Section 2): the next one is the greatest

    lambda · score(a) - (1 - lambda) · max over b on the list of sim(a, b).

Divided by lambda, the score keeps its unit: score(a) - penalty · max sim, with penalty = (1 - lambda) / lambda.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import RuleConstraint
from services.crs_engine.pipeline.rules.base import Draw, Restraint


class Diversity:
    """``rules.diversity``: by the values of an attribute that two contents share, or by their vectors."""

    name: ClassVar[str] = "diversity"

    def __init__(self, params: rule_options.Diversity, placement: Placement) -> None:
        self._params = params

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        return _Marginal(self._params, draw) if draw.slate.group.count > 1 else None


class _Marginal(Restraint):
    def __init__(self, params: rule_options.Diversity, draw: Draw) -> None:
        self._params = params
        self._draw = draw
        catalog, rows = draw.view.catalog, draw.items.rows
        if params.attribute is None:
            self._vectors = catalog.vectors(rows)
        else:
            self._keys = catalog.attributes[params.attribute].keys(rows)
            self._sizes = (self._keys != 0).sum(axis=1)

    def shifts(self, before: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """See `Constraint.shifts`."""
        listed = self._draw.listed(before)
        if not (listed >= 0).any():
            return None
        n = len(self._draw.pool)
        owners, closest = self._draw.pool.owners, np.zeros(n)
        for column in np.flatnonzero((listed >= 0).any(axis=0)).tolist():  # positions, not candidates
            theirs = listed[owners, column]
            closest = np.maximum(closest, np.where(theirs >= 0, self._likeness(n, theirs), 0.0))
        return -self._params.penalty * closest

    def _likeness(self, n: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        """``float64[n]``: of the first n items with the others (int64[n]), Jaccard's coefficient, or the cosine."""
        if self._params.attribute is None:
            cosine = np.einsum("nd,nd->n", self._vectors[:n], self._vectors[others])
            return np.asarray(np.maximum(cosine, 0.0), np.float64)
        own, theirs = self._keys[:n], self._keys[others]
        shared = ((own[:, :, None] == theirs[:, None, :]) & (own != 0)[:, :, None]).sum(axis=(1, 2))
        return np.asarray(shared / np.maximum(self._sizes[:n] + self._sizes[others] - shared, 1))

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        if self._params.attribute is None:
            return "its vector is near that of something that stands before it"
        return f"it shares {self._params.attribute} with what stands before it"
