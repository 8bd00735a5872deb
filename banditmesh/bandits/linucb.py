"""LinUCB with disjoint linear models (Li, Chu, Langford, Schapire 2010, Algorithm 1).

For each arm a: A_a = ridge U^2 + sum x x^T, b_a = sum (r - r0) x, theta_a = A_a^-1 b_a. A candidate x has mean
r0 + theta_a^T x and deviation noise sqrt(x^T A_a^-1 x) (Eq. 5 without its alpha, which belongs to the `ucb`
exploration). `dense` gives Algorithm 1 to the letter: there r0 = 0, noise = 1, U = I. That suits rewards of about 1 and
features of about 1. So otherwise, unless they are given, r0 and noise are mean and deviation of all rewards, and U is
the diagonal of the coordinates' units: the root mean square of their values, rounded to a power of 2 so that it hardly
ever changes. All of these are functions of sums, which add up when models merge.

Kept are the sums, in float64 and as packed upper triangles: exact over millions of examples, mergeable by addition,
and at d = 32 no larger than a float32 matrix (10 000 arms: 42 MB). For scoring there is the *readout* of each arm in
float32, [W; A^-1 sum r x; A^-1 sum x] with W^T W = A^-1 (45 MB more), derived when an arm is next scored or saved, so
that learning is addition alone. It is saved with the sums: a process that only serves computes nothing at loading,
explores exactly as the saver, and shares memory-mapped pages with its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments, triangle
from banditmesh.bandits.arms import Slots, arm_keys, decay
from banditmesh.bandits.batch import Candidates, Examples, Scores
from banditmesh.bandits.errors import NotMergeable
from banditmesh.bandits.gaussian import whitening
from banditmesh.bandits.linucb_sums import ArmSums, ArmSumsParams, Floats
from banditmesh.bandits.policy import PolicyParams, Tensors, tensor
from banditmesh.bandits.projection import NamedFields, Projection, SignedProjection

_DERIVE_AT_ONCE = 64
_GROUP_FROM = 8
_GATHER_AT_ONCE = 64
_LEAST_UNIT, _LARGEST_UNIT = 2.0**-100, 2.0**100
_REWARDS = 3
"""How many numbers of the pool are of rewards: their count, sum and sum of squares."""


class LinucbParams(ArmSumsParams):
    """Parameters of `linucb`."""

    prior_reward: float | None = Field(
        default=None,
        description="Expected reward of an arm before anything is known of it; null: the mean of all rewards, or 0 "
        "when `dense` is given.",
    )
    noise: float | None = Field(
        default=None,
        gt=0,
        description="Standard deviation of one reward, for the deviation; null: that of all rewards, or 1 when `dense` "
        "is given.",
    )


class Linucb(ArmSums):
    """See the module.

    State of an arm: precision sums, moment sums, the time up to which they are decayed. Of all arms the pool: count,
    sum and sum of squares of the rewards; for each coordinate how often it was not 0, and the sum of squares.
    """

    name: ClassVar[str] = "linucb"
    Params: ClassVar[type[PolicyParams]] = LinucbParams
    learns: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    params: LinucbParams

    def __init__(self, params: LinucbParams | None = None) -> None:
        self.params = params or LinucbParams()
        dense = self.params.dense
        self._project: Projection = NamedFields(dense) if dense else SignedProjection(self.params.dimension)
        d = self._project.dimension
        self._upper, self._square = triangle.packed(d)
        self._prior_precision = np.eye(d) * self.params.ridge
        self._pooled = self.params.prior_reward is None and not dense
        self._start()

    def _start(self) -> None:
        d = self._project.dimension
        self._start_with(
            {
                "precision": (np.float64, (len(self._upper[0]),)),
                "moment": (np.float64, (d,)),
                "readout": (np.float32, (d + 2, d)),
            }
        )
        self._pool = np.zeros((1, _REWARDS + 2 * d))
        self._unit = np.ones(d)

    # -- what all arms have in common

    @property
    def _centre(self) -> float:
        return 0.0 if self._pooled else self.params.prior

    def _rewards(self) -> tuple[float, float]:
        """Prior reward and noise; where they are pooled, one example of a fair coin counts too."""
        count, total, squares = (self._pool[0, :_REWARDS] + (1.0, 0.5, 0.5)).tolist()
        mean = total / count
        noise = max(squares / count - mean * mean, 0.25 / count) ** 0.5
        given = self.params.noise or (1.0 if self.params.dense else None)
        return mean if self._pooled else self.params.prior, noise if given is None else given

    def _measure(self) -> None:
        """Brings the units up to the pool."""
        if self.params.dense:
            return
        count, squares = self._pool[0, _REWARDS:].reshape(2, -1)
        size = np.sqrt(squares / np.maximum(count, 1.0))
        unit = np.exp2(np.round(np.log2(np.where(size > 0, size, 1.0)))).clip(_LEAST_UNIT, _LARGEST_UNIT)
        if not np.array_equal(unit, self._unit):
            self._unit = unit
            self._stale[:] = True

    # -- scoring

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`."""
        keys = arm_keys(self.params.arm, candidates)
        width = segments.width(candidates.offsets)
        alike = bool(width) and not len(candidates.features.ids) and _repeats(keys, width)
        slots = self._arms.find(keys[:width] if alike else keys)
        self._derive(slots)
        # A feature near the end of float32 may overflow: that score is not finite and ranks last.
        with np.errstate(over="ignore", invalid="ignore"):
            if alike and not np.count_nonzero(slots < 0):
                return self._score_alike(self._contexts(candidates).astype(np.float32), slots)
            return self._score_any(
                self._vectors(candidates), np.tile(slots, len(candidates.context)) if alike else slots
            )

    def _score_alike(self, x: NDArray[np.float32], slots: NDArray[np.int64]) -> Scores:
        """Every decision is between the same known arms (slots: int64[k]), whose features are its own alone (x:
        float32[n_decisions, d]): nothing to sort or repeat, and one product with the readouts of many arms."""
        n, d = x.shape
        prior, noise = self._rewards()
        mean, variance = np.empty((n, len(slots)), np.float32), np.empty((n, len(slots)), np.float32)
        for start in range(0, len(slots), _GATHER_AT_ONCE):
            part = slice(start, start + _GATHER_AT_ONCE)
            readouts = self._arms["readout"].take(slots[part], axis=0).reshape(-1, d)
            whitened = (x @ readouts.T).reshape(n, -1, d + 2)
            np.add(self._above(whitened, prior), np.float32(prior), out=mean[:, part])
            np.einsum("nij,nij->ni", whitened[:, :, :-2], whitened[:, :, :-2], out=variance[:, part])
        return Scores(mean.ravel(), np.float32(noise) * np.sqrt(variance, out=variance).ravel())

    def _above(self, whitened: NDArray[np.float32], prior: float) -> NDArray[np.float32]:
        """[...]: by how much means are above the prior reward, from what readouts gave: [..., d + 2]."""
        return whitened[..., -2] - np.float32(prior) * whitened[..., -1] if self._pooled else whitened[..., -2]

    def _score_any(self, x: NDArray[np.float32], slots: NDArray[np.int64]) -> Scores:
        """float32[n, d] vectors of candidates, and their arms."""
        prior, noise = self._rewards()
        order = np.argsort(slots, kind="stable")  # an arm's candidates stand together, and come apart as two numbers
        mean, deviation = np.empty(len(slots), np.float32), np.empty(len(slots), np.float32)
        whitened = self._read(x.take(order, axis=0), slots[order])
        mean[order] = self._above(whitened, prior) + np.float32(prior)
        deviation[order] = np.float32(noise) * np.sqrt(np.einsum("ij,ij->i", whitened[:, :-2], whitened[:, :-2]))
        return Scores(mean, deviation)

    def _contexts(self, candidates: Candidates) -> NDArray[np.float64]:
        """float64[n_decisions, d]: the features that a decision's candidates share, with the bias."""
        x = self._project.rows(candidates.context)
        if self._project.intercept:
            x[:, 0] = 1.0
        return x

    def _vectors(self, candidates: Candidates) -> NDArray[np.float32]:
        """float32[n_candidates, d]: shared context and own features, with the bias."""
        x = np.repeat(self._contexts(candidates), segments.lengths(candidates.offsets), axis=0)
        if len(candidates.features.ids):
            x += self._project.rows(candidates.features)  # which leaves coordinate 0 to the bias
        return x.astype(np.float32)

    def _read(self, x: NDArray[np.float32], slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n, d + 2]: each arm's readout applied to its candidates; the prior's for an unseen arm. `slots`:
        ascending."""
        n, d = x.shape
        out = np.empty((n, d + 2), np.float32)
        unseen = int(np.searchsorted(slots, 0))
        if unseen:
            np.multiply(x[:unseen], (self.params.ridge**-0.5 / self._unit).astype(np.float32), out=out[:unseen, :-2])
            out[:unseen, -2:] = 0.0
        if unseen == n:
            return out
        starts = (np.flatnonzero(slots[unseen + 1 :] != slots[unseen:-1]) + unseen + 1).tolist()
        starts.insert(0, unseen)
        readout = self._arms["readout"]
        if n - unseen >= _GROUP_FROM * len(starts):
            # Few arms with many candidates each: one matrix product an arm reads its readout once.
            for start, stop in zip(starts, [*starts[1:], n], strict=True):
                np.matmul(x[start:stop], readout[slots[start]].T, out=out[start:stop])
        else:
            # Many arms: gather readouts (4 KiB each at d = 32) by so few that they stay in the cache.
            for start in range(unseen, n, _GATHER_AT_ONCE):
                rows = slice(start, min(start + _GATHER_AT_ONCE, n))
                out[rows] = np.matmul(readout[slots[rows]], x[rows, :, None])[:, :, 0]
        return out

    def _derive(self, slots: NDArray[np.int64]) -> None:
        """Brings the readouts of these arms (-1 is passed over) up to the sums as of now."""
        if not np.count_nonzero(self._stale):
            return
        wanted = slots[self._stale.take(slots) & (slots >= 0)]
        if len(wanted) > 1:
            wanted = np.unique(wanted)
        d, inverse = self._project.dimension, 1.0 / self._unit
        arms = self._arms
        for start in range(0, len(wanted), _DERIVE_AT_ONCE):
            part = wanted[start : start + _DERIVE_AT_ONCE]
            precision, moment = arms["precision"].take(part, axis=0), arms["moment"].take(part, axis=0)
            if self.params.half_life is not None:
                left = decay(self._now_s - arms["last_s"][part], self.params.half_life)[:, None]
                precision, moment = precision * left, moment * left
            full = precision.take(self._square, axis=1)
            moments = np.stack([moment, full[:, 0]], axis=2)  # coordinate 0 is the bias, so that is sum x
            full *= inverse[:, None] * inverse
            full += self._prior_precision
            white = whitening(full)
            white *= inverse
            readout = np.empty((len(part), d + 2, d), np.float32)
            readout[:, :-2] = white
            readout[:, -2:] = (white.transpose(0, 2, 1) @ (white @ moments)).transpose(0, 2, 1)
            arms["readout"][part] = readout
        self._stale[wanted] = False

    # -- learning

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`."""
        x = self._project.rows(examples.features)
        if self._project.intercept:
            x[:, 0] = 1.0
        self._learn(examples, x)
        self._measure()

    def _add(self, slots: Slots, centred: Floats, times_s: Floats, *projected: Floats) -> None:
        (x,) = projected
        half_life_s = self.params.half_life
        rows, columns = self._upper
        outer = x.take(rows, axis=1) * x.take(columns, axis=1)
        rewards = centred + self._centre
        pooled = [np.ones_like(rewards), rewards, rewards * rewards]
        segments.add_rows(self._pool, np.zeros(len(x), np.int64), np.column_stack([*pooled, x != 0, x * x]))
        push = x * centred[:, None]
        precision, moment, last_s = self._arms["precision"], self._arms["moment"], self._arms["last_s"]
        if half_life_s is None:
            segments.add_rows(precision, slots, outer)
            segments.add_rows(moment, slots, push)
            np.maximum.at(last_s, slots, times_s)
        else:
            for part in segments.rounds(slots):
                at = slots[part]
                now_s = np.maximum(last_s[at], times_s[part])
                left = decay(now_s - last_s[at], half_life_s)[:, None]
                weight = decay(now_s - times_s[part], half_life_s)[:, None]
                precision[at] = precision[at] * left + outer[part] * weight
                moment[at] = moment[at] * left + push[part] * weight
                last_s[at] = now_s
        self._touch(slots, float(times_s.max()))

    def _touch(self, slots: NDArray[np.int64], now_s: float) -> None:
        self._stale[slots] = True
        if now_s > self._now_s:
            self._now_s = now_s
            if self.params.half_life is not None:
                self._stale[:] = True  # time has passed for every arm

    def _retire(self) -> None:
        stale = self._arms.keys()[self._stale]
        if len(self._arms.retire(self.params, self._now_s)):
            self._stale = np.isin(self._arms.keys(), stale)

    def start_epoch(self) -> None:
        """See `Policy.start_epoch`: all sums start from nothing."""
        self._start()

    # -- saving

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: per arm "precision", "moment", "readout", "last_s"; "examples" and "now_s"."""
        self._derive(np.arange(len(self._arms)))
        return {**self._saved(), "pool": self._pool.copy()}

    @classmethod
    def from_tensors(cls, params: LinucbParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        policy = cls(params)
        policy._restore(tensors)
        policy._pool = tensor(tensors, "pool", np.float64, policy._pool.shape).copy()
        policy._measure()
        policy._stale[:] = False
        return policy

    def merge(self, other: Self) -> None:
        """See `Policy.merge`: the sums of shared arms are decayed to the later of both times and added."""
        if other.params != self.params:
            raise NotMergeable("the parameters differ", field="linucb", value=other.params)
        if not len(other._arms):
            return
        slots = self._claim(other._arms.keys())
        last_s = np.maximum(self._arms["last_s"][slots], other._arms["last_s"])
        mine = decay(last_s - self._arms["last_s"][slots], self.params.half_life)[:, None]
        theirs = decay(last_s - other._arms["last_s"], self.params.half_life)[:, None]
        for column in ("precision", "moment"):
            self._arms[column][slots] = self._arms[column][slots] * mine + other._arms[column] * theirs
        self._arms["last_s"][slots] = last_s
        self._touch(slots, other._now_s)
        self._pool += other._pool
        self._measure()
        self._seen += other._seen
        self._retire()


def _repeats(keys: NDArray[np.uint64], width: int) -> bool:
    """Whether the first `width` keys stand there over and over."""
    return len(keys) == width or np.count_nonzero(keys.reshape(-1, width) == keys[:width]) == len(keys)
