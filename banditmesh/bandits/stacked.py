"""A factorization machine and a ridge regression of each arm, believed as far as each has predicted: the default.

`fm` is at home where contents are many and are told apart by what they share; a regression of each arm with its full
covariance (`arm_ridge`) where a few arms meet a numeric context, of which it learns in a tenth of the examples. Which
of the two a log is like is seen from the log. With s the mean of `fm`, d that of the arm's regression and k the part
of the regression's prior variance that the arm's examples have resolved in this context,

    mean = s + g f,   f = k (d - s),   g = (sum_j f_j (y_j - s_j) + w) / (sum_j f_j^2 + w)   cut to [0, 1],

where all means are those before example j was learned from, f and y - s in units of the noise, over the last
`_MEMORY` examples or so (stacking: Wolpert 1992; Breiman 1996). At first g is 1: k alone decides then, and an arm that
nobody knows is judged by `fm`.

What it does not know is another matter than what it says: of an arm whose examples have resolved nothing yet in this
context, the regression knows that it does not know it, and `fm`, whose features others share, does not. So beside the
deviation that belongs to the mean above stands that of the regression, which is the larger one for such an arm, as far
as the regressions of the arms that are shown know their contexts (K, the mean of k over the last `_RECENT` examples),

    deviation = max(of the mean, min(1, 2 g max(k, K^2)) of the regression).

`thompson` widens deviations with the number of candidates, from 10 to 25 of them, for of many arms each is picked
rarely. But of what arms share all examples tell, whichever was picked: the deviation of `fm` is narrowed as much.

One thing that `fm` is told, this policy finds: what holds no more. A weight whose residuals lean to one side gives up
what it learned before (`surprise`), as do all weights of a kind that says too much (`calibration`). The regressions of
the arms forget by `half_life` alone. Each live feature has 8 bytes more than in `fm`.

Only the first pass over a log shows how well anything predicts what it has not seen. Later ones are those of `fm`: the
regressions are sums, which have all examples by then, and g and the rest stay as that pass has left them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import calibration, segments
from banditmesh.bandits.arm_ridge import ArmRidge, Floats, Predicted
from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from banditmesh.bandits.durations import Positive
from banditmesh.bandits.fm import Fm, FmParams
from banditmesh.bandits.link import respond
from banditmesh.bandits.minibatch import Batch, Step
from banditmesh.bandits.policy import PerArmParams, PolicyParams, Tensors, tensor
from banditmesh.bandits.surprise import noticed
from banditmesh.bandits.table import Column

_MEMORY = 4096.0
_FIRST = 1.0
"""What g starts from is worth so many units of evidence."""
_RESIDUALS = 100_000
_RECENT = 128.0
"""Examples over which K is the mean."""
_FEW, _MANY = 10, 25
"""Candidates between which what `thompson` makes of their number is taken back for `fm`."""
_TRIED = 2.0
"""How much more is believed of what a regression does not know than of what it says: a g found on arms that were picked
for their mean is too small."""


class StackedParams(FmParams):
    """Parameters of `stacked`."""

    half_life: Positive | None = Field(
        default=None,
        description="Age at which evidence counts half (drift); null: none by its age. Evidence that newer examples "
        "contradict is given up either way.",
    )
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
    added: ClassVar[frozenset[str]] = Fm.added | {"surprise", "calibration", "resolved"}

    def __init__(self, params: StackedParams | None = None) -> None:
        given = params or StackedParams()
        super().__init__(given)
        self._calibration = np.zeros(calibration.SHAPE)
        # Not validated again: what is seconds by now would be no duration.
        kept = PerArmParams.model_construct(max_arms=given.max_arms, retire_after=given.retire_after)
        self._ridge = ArmRidge(given.dimension, given.arm_ridge, kept)
        self._stack = np.array(
            [_FIRST, _FIRST, 0.25, 16.0]
        )  # sums of f² and of f (y - s); mean square error, its weight
        self._resolved = np.zeros(1)  # K

    def _columns(self) -> dict[str, Column]:
        return {**super()._columns(), "surprise": Column(2, 0.0, added=True)}

    @property
    def _share(self) -> float:
        """g."""
        return float(min(max(self._stack[1] / self._stack[0], 0.0), 1.0))

    # -- what is given up

    def _learn_weights(self, step: Step, base: Floats) -> Floats:
        if self._again:
            return super()._learn_weights(step, base)
        rows = step.group.rows
        kind = self._table["kind"][rows].astype(np.int64)
        said = calibration.parts(step, self._table["weight"][rows].astype(np.float64), kind)
        response = respond(self.params.link, said.sum(axis=1) + base + (self._offset + self._intercept[0]))
        residual = super()._learn_weights(step, base)
        unit = max(self._size**2, 1e-30) if self.params.link == "identity" else 1.0
        curvature = np.asarray(response.curvature, np.float64)
        self._calibration = calibration.moved(self._calibration, said, -residual, curvature, unit)
        return residual

    def _learned(self, step: Step, residuals: Floats, before: int) -> None:
        if self._again:
            return
        self._give_up(step, residuals)
        kept = calibration.kept(self._calibration)
        if kept is not None:
            self._keep(kept)

    def _give_up(self, step: Step, residuals: Floats) -> None:
        table, rows = self._table, step.group.rows
        prior = self._widths.of(table["kind"][rows])
        sums, precision = table["surprise"][rows].astype(np.float64), table["precision"][rows].astype(np.float64)
        curvature = 1.0 if self.params.link == "identity" else self._size**2
        found = noticed(step, residuals / max(self._size, 1e-30), sums, precision, prior, curvature)
        table["surprise"][rows], table["precision"][rows] = found

    def _keep(self, part: Floats) -> None:
        """Of the weights of each kind this part, float64[KINDS]. See `calibration`."""
        kind, precision = self._table.column("kind").astype(np.int64), self._table.column("precision")
        left, prior = part[kind], self._widths.now[kind]
        self._table.column("weight")[:] *= left.astype(np.float32)
        precision[:] = np.where(left < 1.0, 1.0 / (left * left / precision + (1.0 - left * left) / prior), precision)
        self._calibration[:] = 0.0

    # -- scoring

    def _score(self, candidates: Candidates) -> Scores:
        counts = segments.lengths(candidates.offsets)
        base = super()._score(candidates)
        shared = base.deviation * np.repeat(np.float32(_FEW) / np.clip(counts, _FEW, _MANY).astype(np.float32), counts)
        if not self._share:
            return Scores(base.mean, shared)
        x = np.repeat(self._rows(candidates.context), counts, axis=0)
        if len(candidates.features.ids):
            x += self._rows(candidates.features)
        found = self._ridge.predict(x, self._arms(candidates))
        share = np.float32(self._share) * found.resolved
        unknown = np.float32(_TRIED * self._share) * np.maximum(found.resolved, np.float32(self._resolved[0] ** 2))
        with np.errstate(over="ignore", invalid="ignore"):
            regression = found.variance * self._noise
            variance = np.square((1 - share) * shared) + np.square(share) * regression
            variance = np.maximum(variance, np.square(np.minimum(unknown, 1.0)) * regression)
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
        if self._again:
            return super()._learn(batch)
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
        recent = 1.0 - (1.0 - 1.0 / _RECENT) ** len(rewards)
        self._resolved += (found.resolved.mean() - self._resolved) * recent
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
        self._table.column("surprise")[:] = 0.0
        self._calibration[:] = 0.0

    def _fade(self, left: float) -> None:
        super()._fade(left)
        self._table.column("surprise")[:] *= np.float32(left)
        self._calibration *= left
        self._ridge.fade(left)

    # -- saving

    def _dense(self) -> Tensors:
        return {
            **super()._dense(),
            "stack": self._stack,
            "calibration": self._calibration,
            "resolved": self._resolved,
            **self._ridge.tensors(),
        }

    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        super()._restore_dense(tensors)
        self._stack = tensor(tensors, "stack", np.float64, (4,)).copy()
        if "calibration" in tensors:
            self._calibration = tensor(tensors, "calibration", np.float64, calibration.SHAPE).copy()
        if "resolved" in tensors:
            self._resolved = tensor(tensors, "resolved", np.float64, (1,)).copy()
        self._ridge.restore(tensors)
