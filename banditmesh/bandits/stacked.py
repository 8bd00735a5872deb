"""A factorization machine and a ridge regression of each arm, believed as far as each has predicted: the default.

`fm` is at home where contents are many and are told apart by what they share; a regression of each arm with its full
covariance (`arm_ridge`) where a few arms meet a numeric context, of which it learns in a tenth of the examples. Which
of the two a log is like is seen from the log. With s the mean of `fm`, d that of the arm's regression and k the part
of the regression's prior variance that the arm's examples have resolved in this context,

    mean = s + g f,   f = k (d - s),   g = (sum_j f_j (y_j - s_j) + w) / (sum_j f_j^2 + w)   cut to [0, 1],

where all means are those before example j was learned from, f and y - s in units of the noise, over the last
`_MEMORY` examples or so (stacking: Wolpert 1992; Breiman 1996). At first g is 1: k alone decides then, and an arm that
nobody knows is judged by `fm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.arm_ridge import ArmRidge, Floats, Predicted
from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from banditmesh.bandits.fm import Fm, FmParams
from banditmesh.bandits.minibatch import Batch
from banditmesh.bandits.policy import PerArmParams, PolicyParams, Tensors, tensor

_MEMORY = 4096.0
_FIRST = 1.0
"""What g starts from is worth so many units of evidence."""
_RESIDUALS = 100_000


class StackedParams(FmParams):
    """Parameters of `stacked`."""

    dimension: int = Field(
        default=64, ge=2, le=256, description="Coordinates of the regression of an arm, the bias included."
    )
    arm_ridge: float = Field(
        default=1.0, gt=0, description="Precision of the prior on each of their standardised coefficients, in examples."
    )
    max_arms: int = Field(
        default=512, ge=1, description="Arms with a regression; beyond this those shown longest ago lose it."
    )


class Stacked(Fm):
    """See the module."""

    name: ClassVar[str] = "stacked"
    Params: ClassVar[type[PolicyParams]] = StackedParams

    def __init__(self, params: StackedParams | None = None) -> None:
        given = params or StackedParams()
        super().__init__(given)
        kept = PerArmParams(max_arms=given.max_arms, retire_after=given.retire_after)
        self._ridge = ArmRidge(given.dimension, given.arm_ridge, kept)
        self._stack = np.array(
            [_FIRST, _FIRST, 0.25, 16.0]
        )  # sums of f² and of f (y - s); mean square error, its weight

    @property
    def _share(self) -> float:
        """g."""
        return float(min(max(self._stack[1] / self._stack[0], 0.0), 1.0))

    # -- scoring

    def _score(self, candidates: Candidates) -> Scores:
        base = super()._score(candidates)
        if not self._share:
            return base
        x = np.repeat(self._rows(candidates.context), segments.lengths(candidates.offsets), axis=0)
        if len(candidates.features.ids):
            x += self._rows(candidates.features)
        found = self._ridge.predict(x, self._arms(candidates))
        share = np.float32(self._share) * found.resolved
        with np.errstate(over="ignore", invalid="ignore"):
            variance = np.square((1 - share) * base.deviation) + np.square(share) * found.variance * self._noise
            return Scores(base.mean + share * (found.mean - base.mean), np.sqrt(variance))

    @property
    def _noise(self) -> np.float32:
        noise = self._params.noise
        return np.float32(self._stack[2] if noise is None else noise * noise)

    def _arms(self, candidates: Candidates) -> NDArray[np.uint64]:
        """uint64[n]: whose regressions these are; one for all where arms are no feature."""
        if self.params.arm == "none":
            return np.zeros(len(candidates), np.uint64)
        return self._arm_ids(candidates).astype(np.uint64)

    def _rows(self, features: SparseRows) -> Floats:
        return self._ridge.rows(self._folded(features))

    # -- learning

    def _learn(self, batch: Batch) -> NDArray[np.float64]:
        features, arms = self._apart(batch.features)
        found = self._ridge.predict(self._ridge.rows(features), arms)
        residual = super()._learn(batch)
        self._learn_share(found, residual, batch.rewards)
        self._ridge.learn(features, arms, batch.rewards, batch.times_s)
        return residual

    def _apart(self, rows: SparseRows) -> tuple[SparseRows, NDArray[np.uint64]]:
        """The features of a mini-batch without the arms', which are the last ones, and the arms: uint64[n]."""
        if self.params.arm == "none":
            return rows, np.zeros(len(rows), np.uint64)
        kept = np.ones(len(rows.ids), np.bool_)
        kept[rows.offsets[1:] - 1] = False
        features = SparseRows(segments.kept_offsets(rows.offsets, kept), rows.ids[kept], rows.values[kept])
        return features, rows.ids[rows.offsets[1:] - 1].astype(np.uint64)

    def _learn_share(self, found: Predicted, residual: Floats, rewards: Floats) -> None:
        left = -residual
        f = found.resolved * (found.mean - (rewards + residual))
        n = len(f)
        error = float(np.square(left - self._share * f).mean())
        weight = min(self._stack[3] + n, _RESIDUALS)
        self._stack[2] += (error - self._stack[2]) * (n / weight)
        self._stack[3] = weight
        unit = max(float(self._stack[2]), 1e-30)
        fading = (1.0 - 1.0 / _MEMORY) ** n
        self._stack[:2] = self._stack[:2] * fading + np.array([(f * f).sum(), (f * left).sum()]) / unit

    def _start_pass(self) -> None:
        super()._start_pass()
        self._ridge.start_pass()

    def _fade(self, left: float) -> None:
        super()._fade(left)
        self._ridge.fade(left)

    # -- saving

    def _dense(self) -> Tensors:
        return {**super()._dense(), "stack": self._stack, **self._ridge.tensors()}

    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        super()._restore_dense(tensors)
        self._stack = tensor(tensors, "stack", np.float64, (4,)).copy()
        self._ridge.restore(tensors)
