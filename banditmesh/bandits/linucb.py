"""LinUCB with disjoint linear models (Li, Chu, Langford, Schapire 2010, Algorithm 1).

For each arm a: A_a = ridge I + sum x x^T, b_a = sum (r - prior_reward) x, theta_a = A_a^-1 b_a. A candidate x has mean
prior_reward + theta_a^T x and deviation sqrt(x^T A_a^-1 x) (Eq. 5 without its alpha, which belongs to the `ucb`
exploration). Algorithm 1 has no prior reward, that is 0: an arm that nobody has seen is then expected to earn less than
one that everybody ignores (0.5 by default), so the default here is 0.5. `dense` gives Algorithm 1 to the letter.

Kept are the sums, in float64 and as packed upper triangles: exact over millions of examples, mergeable by addition,
and at d = 32 no larger than a float32 matrix (10 000 arms: 42 MB). For scoring there is the *readout* of each arm in
float32, [W; theta] with W^T W = A^-1 (42 MB more), derived when an arm is next scored or saved, so that learning is
addition alone. It is saved with the sums: a process that only serves computes nothing at loading, explores exactly as
the saver, and shares memory-mapped pages with its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.arms import Slots, arm_keys, decay
from banditmesh.bandits.batch import Candidates, Examples, Scores
from banditmesh.bandits.errors import NotMergeable
from banditmesh.bandits.gaussian import whitening
from banditmesh.bandits.linucb_sums import ArmSums, Floats, LinucbParams
from banditmesh.bandits.policy import PolicyParams, Tensors
from banditmesh.bandits.projection import NamedFields, Projection, SignedProjection

_DERIVE_AT_ONCE = 64
_GROUP_FROM = 8
_GATHER_AT_ONCE = 64


class Linucb(ArmSums):
    """See the module. State of an arm: precision sums, moment sums, the time up to which they are decayed."""

    name: ClassVar[str] = "linucb"
    Params: ClassVar[type[PolicyParams]] = LinucbParams
    learns: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    shares: ClassVar[bool] = False

    def __init__(self, params: LinucbParams | None = None) -> None:
        self.params = params or LinucbParams()
        dense = self.params.dense
        self._project: Projection = NamedFields(dense) if dense else SignedProjection(self.params.dimension)
        d = self._project.dimension
        self._upper = np.triu_indices(d)
        self._square = np.empty((d, d), np.int64)  # where each element of the matrix is in its packed triangle
        self._square[self._upper] = self._square.T[self._upper] = np.arange(len(self._upper[0]))
        self._prior_precision = np.eye(d) * self.params.ridge
        self._start()

    def _start(self) -> None:
        d = self._project.dimension
        self._start_with(
            {
                "precision": (np.float64, (len(self._upper[0]),)),
                "moment": (np.float64, (d,)),
                "readout": (np.float32, (d + 1, d)),
            }
        )

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
        mean, variance = np.empty((n, len(slots)), np.float32), np.empty((n, len(slots)), np.float32)
        for start in range(0, len(slots), _GATHER_AT_ONCE):
            part = slice(start, start + _GATHER_AT_ONCE)
            readouts = self._arms["readout"].take(slots[part], axis=0).reshape(-1, d)
            whitened = (x @ readouts.T).reshape(n, -1, d + 1)
            np.add(whitened[:, :, -1], np.float32(self.params.prior), out=mean[:, part])
            np.einsum("nij,nij->ni", whitened[:, :, :-1], whitened[:, :, :-1], out=variance[:, part])
        return Scores(mean.ravel(), np.sqrt(variance, out=variance).ravel())

    def _score_any(self, x: NDArray[np.float32], slots: NDArray[np.int64]) -> Scores:
        """float32[n, d] vectors of candidates, and their arms."""
        order = np.argsort(slots, kind="stable")  # an arm's candidates stand together, and come apart as two numbers
        mean, deviation = np.empty(len(slots), np.float32), np.empty(len(slots), np.float32)
        whitened = self._read(x.take(order, axis=0), slots[order])
        mean[order] = whitened[:, -1] + np.float32(self.params.prior)
        deviation[order] = np.sqrt(np.einsum("ij,ij->i", whitened[:, :-1], whitened[:, :-1]))
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
        """float32[n, d + 1]: each arm's readout applied to its candidates; the prior's for an unseen arm. `slots`:
        ascending."""
        n, d = x.shape
        out = np.empty((n, d + 1), np.float32)
        unseen = int(np.searchsorted(slots, 0))
        if unseen:
            np.multiply(x[:unseen], np.float32(self.params.ridge**-0.5), out=out[:unseen, :-1])
            out[:unseen, -1] = 0.0
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
        d = self._project.dimension
        arms = self._arms
        for start in range(0, len(wanted), _DERIVE_AT_ONCE):
            part = wanted[start : start + _DERIVE_AT_ONCE]
            precision, moment = arms["precision"].take(part, axis=0), arms["moment"].take(part, axis=0)
            if self.params.half_life is not None:
                left = decay(self._now_s - arms["last_s"][part], self.params.half_life)[:, None]
                precision, moment = precision * left, moment * left
            full = precision.take(self._square, axis=1)
            full += self._prior_precision
            white = whitening(full)
            readout = np.empty((len(part), d + 1, d), np.float32)
            readout[:, :-1] = white
            readout[:, -1] = (white.transpose(0, 2, 1) @ (white @ moment[:, :, None]))[:, :, 0]
            arms["readout"][part] = readout
        self._stale[wanted] = False

    # -- learning

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`."""
        x = self._project.rows(examples.features)
        if self._project.intercept:
            x[:, 0] = 1.0
        self._learn(examples, x)

    def _add(self, slots: Slots, centred: Floats, times_s: Floats, *projected: Floats) -> None:
        (x,) = projected
        half_life_s = self.params.half_life
        rows, columns = self._upper
        outer = x.take(rows, axis=1) * x.take(columns, axis=1)
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
        return self._saved()

    @classmethod
    def from_tensors(cls, params: LinucbParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        policy = cls(params)
        policy._restore(tensors)
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
        self._seen += other._seen
        self._retire()


def _repeats(keys: NDArray[np.uint64], width: int) -> bool:
    """Whether the first `width` keys stand there over and over."""
    return len(keys) == width or np.count_nonzero(keys.reshape(-1, width) == keys[:width]) == len(keys)
