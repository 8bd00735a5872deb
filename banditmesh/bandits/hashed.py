"""What `linear`, `fm` and `nfm` share: hashed features in a table, arms as features, mini-batches cut by count.

A row's features are those of the decision and the candidate, and one for the arm itself. Each is measured in its own
unit, the root mean square of its values so far: a category's is 1, and whether a price comes in cents or in euros makes
no difference (Ross, Mineiro, Langford 2013, who take the maximum, which one outlier sets for ever). Examples are
learned in mini-batches whose borders depend on the number of examples alone: batches begin with `first_batch`, are
never more than 1/64 of what was seen before, and grow to `batch` (all powers of two). What does not fill a batch yet
waits in the state, and is saved with it. So the state is a function of the sequence of examples, however it was cut,
and early on a model is never far behind its examples. How wide the prior of the weights is, is read off them
(`prior_width`), for each kind of feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import prior_width, segments
from banditmesh.bandits.arms import RETIRE_EVERY, arm_keys, decay
from banditmesh.bandits.batch import Candidates, Examples, Scores, SparseRows, require_finite
from banditmesh.bandits.errors import InvalidBatch, NotMergeable
from banditmesh.bandits.hashed_params import HashedParams
from banditmesh.bandits.hashing import CROSSED, mix64
from banditmesh.bandits.link import inverse, respond
from banditmesh.bandits.minibatch import Batch, Step, distinct
from banditmesh.bandits.policy import Tensors, tensor
from banditmesh.bandits.table import Column, FeatureTable, Grouping, Rows
from banditmesh.bandits.weights import Belief, learned

_FADES_PER_HALF_LIFE = 64
_SCORE_AT_ONCE = 1024
_LARGEST = 1e12
"""A feature's value counts up to this size, so that no sum of squares in float32 ever overflows."""
_MOST_UNITS = 10.0
"""And up to so many of its units: one wild value neither decides a score nor throws a model off."""
_KEPT_PER_PASS = 0.5
_SHARES_PER_PASS = 1.0 / np.log(2.0)
"""In a later pass a feature's count grows from n to 2 n, so that its examples' shares in it add up to ln 2."""
_FIRST_RESIDUAL = 0.5
"""The root mean square of the residuals is taken to be this, as by so many examples, before there are any."""
_FIRST_RESIDUALS = 16
_RESIDUALS = 100_000


class HashedPolicy(ABC):
    """See the module. A subclass has the table's columns and the dense tensors, learns one step, and scores.

    These columns are there in every table: "seen", the examples that a feature was in (those of earlier passes count
    less), "unit", the factor that makes the root mean square of its values 1, and "kind", by `prior_width`.

    Class attributes:
        first_batch: the least number of examples of a step.
        added: tensors that models saved earlier do not have.
    """

    learns: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    shares: ClassVar[bool] = True
    first_batch: ClassVar[int] = 1
    added: ClassVar[frozenset[str]] = frozenset({"kind", "prior"})

    name: ClassVar[str]

    def __init__(self, params: HashedParams) -> None:
        self._params = params
        columns = {
            "seen": Column(0, 0.0),
            "unit": Column(0, 1.0),
            "weight": Column(0, 0.0),
            "precision": Column(0, params.ridge),
            "kind": Column(0, 0.0, added=True),
            **self._columns(),
        }
        self._table = FeatureTable(params.bits, columns)
        self._offset = inverse(params.link, params.prior_reward)
        self._intercept = np.array([0.0, params.ridge])  # mean, precision
        self._widths = prior_width.Widths(params.ridge)
        self._plain = True  # every unit is 1, as long as there are categories alone
        self._residual = np.full(1, _FIRST_RESIDUAL**2)  # mean square of the residuals
        self._waiting = Batch.empty()
        self._seen = 0  # examples that were learned, without those that wait
        self._again = False  # whether all examples were learned before, in an earlier pass
        self._now_s = -np.inf
        self._faded_s = -np.inf

    # -- for subclasses

    @property
    def _size(self) -> float:
        """The root mean square of the residuals."""
        return float(np.sqrt(self._residual[0]))

    def _columns(self) -> dict[str, Column]:
        """What the table keeps of a feature beside its weight."""
        return {}

    @abstractmethod
    def _step(self, step: Step) -> NDArray[np.floating[Any]]:
        """Learns one mini-batch. Returns the residuals, float[n]: predictions before the step less rewards."""

    def _fade(self, left: float) -> None:
        """Multiplies the evidence, above the prior, by `left`."""
        ridge, prior = self._params.ridge, self._widths.of(self._table.column("kind")).astype(np.float32)
        precision = self._table.column("precision")
        precision[:] = prior + (precision - prior) * np.float32(left)
        self._intercept[1] = ridge + (self._intercept[1] - ridge) * left

    def _start_pass(self) -> None:
        """Evidence is counted anew, from none; the estimates stay."""
        self._again = True
        HashedPolicy._fade(self, 0.0)

    @abstractmethod
    def _dense(self) -> Tensors:
        """The tensors beside the table, as they are (not copied)."""

    @abstractmethod
    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what `_dense` gave. Raises `InvalidTensors`."""

    @abstractmethod
    def _score(self, candidates: Candidates) -> Scores:
        """Mean and deviation of a few decisions."""

    @abstractmethod
    def estimates(self) -> list[NDArray[Any]]:
        """What steps move, as arrays that may be written in place, until the next step. Evidence is not among them."""

    @property
    def generation(self) -> int:
        """Another number whenever a feature was added or dropped, which moves the rows of `estimates`."""
        return self._table.generation

    def _precisions(self, own: SparseRows, rows: Rows, candidates: Candidates) -> NDArray[np.float32]:
        """float32[n_entries]: of the weights of the candidates' own features, which stand in these rows."""
        precisions = self._table["precision"].take(rows)
        unseen = rows == 0
        if unseen.any():
            arms = None if self._params.arm == "none" else self._arm_ids(candidates)
            priors = self._widths.now.astype(np.float32).take(prior_width.kinds(own, arms))
            np.copyto(precisions, priors, where=unseen)
        return precisions

    def _learned(self, step: Step, residuals: NDArray[np.float64], before: int) -> None:
        """Called when a mini-batch was learned, before which there were so many examples."""

    # -- scoring

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`."""
        borders = _borders(candidates.offsets)
        if len(borders) <= 2:
            return self._score(candidates)
        parts = [self._score(candidates.part(start, stop)) for start, stop in pairwise(borders)]
        return Scores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _scores(self, z: NDArray[np.floating[Any]], variance: NDArray[np.floating[Any]]) -> Scores:
        """From the belief about the predictor, [n] each, to that about the reward."""
        response = respond(self._params.link, z)
        scale = response.curvature if self._params.link == "logit" else np.float32(self._params.noise or self._size)
        deviation = np.sqrt(np.maximum(variance, 0)) * scale
        return Scores(response.mean.astype(np.float32), deviation.astype(np.float32))

    # -- the linear part

    def _linear(
        self, candidates: Candidates
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], SparseRows, SparseRows]:
        """The predictor of each candidate and its variance, float32[n] each, and the features that they are made of:
        the candidates' own, and those of the decisions."""
        own, shared = self._own(candidates), self._shared(candidates)
        rows, x = self._found(own)
        z = segments.sums(self._table["weight"].take(rows) * x, own.offsets)
        variance = segments.sums(x * x / self._precisions(own, rows, candidates), own.offsets)
        rows, x = self._found(shared)
        common = segments.sums(self._table["weight"].take(rows) * x, shared.offsets)
        common += np.float32(self._offset + self._intercept[0])
        return z + np.repeat(common, segments.lengths(candidates.offsets)), variance, own, shared

    def _belief(self, step: Step) -> Belief:
        rows = step.group.rows
        weight, precision = self._table["weight"][rows], self._table["precision"][rows]
        return Belief(weight.astype(np.float64), precision.astype(np.float64), self._intercept)

    def _learn_weights(self, step: Step, base: NDArray[np.float64]) -> NDArray[np.float64]:
        """Takes a mini-batch into the weights, where `base` (float64[n]) is what the rest of the policy adds to the
        predictor. Returns the residuals before, float64[n]."""
        link, before, rows = self._params.link, self._belief(step), step.group.rows
        base = base + self._offset
        residual = respond(link, base + before.predictor(step)).mean - step.rewards
        held = self._held(before, step) if self._again else before
        after = learned(step, held, base, link, self._params.iterations)
        self._table["weight"][rows] = after.mean
        self._table["precision"][rows] = after.precision - held.precision + before.precision
        self._intercept = after.intercept
        return np.asarray(residual)

    def _held(self, belief: Belief, step: Step) -> Belief:
        """What to step from where a pass before has learned these examples: the weights are held by all that they were
        learned from, and drawn to the prior by this mini-batch's part of it. Held by the prior alone, as evidence is
        counted, they would be drawn to their own last estimates, and each pass would believe the examples once more."""
        prior = self._widths.of(self._table["kind"][step.group.rows])
        curvature = float(respond(self._params.link, np.array([self._offset])).curvature[0])
        precision = prior + curvature * self._table["seen"][step.group.rows]
        share = step.share * _SHARES_PER_PASS
        return Belief(belief.mean * (1.0 - prior * share / precision), precision, belief.intercept)

    def _weights(self) -> list[NDArray[Any]]:
        """The means of all weights and the intercept, as arrays that may be written in place."""
        return [self._table.column("weight"), self._intercept[:1]]

    # -- features

    def _arm_ids(self, batch: Candidates | Examples) -> NDArray[np.uint32]:
        """uint32[n]: the folded feature ids of the arms. Mixed, for a key's low bits may be a feature's id."""
        return self._table.fold(mix64(arm_keys(self._params.arm, batch)).astype(np.uint32) & ~CROSSED)

    def _found(self, features: SparseRows) -> tuple[Rows, NDArray[np.float32]]:
        """int32[n_entries], where these features stand in the table, and float32[n_entries], their values in units."""
        rows = self._table.find(features.ids)
        x = features.values if self._plain else features.values * self._table["unit"].take(rows)
        return rows, np.clip(x, -_MOST_UNITS, _MOST_UNITS)

    def _own(self, candidates: Candidates) -> SparseRows:
        """The candidates' own features and their arms, folded, each once in a row."""
        return distinct(self._with_arms(candidates.features, candidates))

    def _shared(self, candidates: Candidates) -> SparseRows:
        """The decisions' features, folded, each once in a row."""
        return distinct(self._folded(candidates.context))

    def _folded(self, rows: SparseRows) -> SparseRows:
        return SparseRows(rows.offsets, self._table.fold(rows.ids), np.clip(rows.values, -_LARGEST, _LARGEST))

    def _with_arms(self, rows: SparseRows, batch: Candidates | Examples) -> SparseRows:
        folded = self._folded(rows)
        if self._params.arm == "none":
            return folded
        n = len(rows)
        return folded.beside(SparseRows(np.arange(n + 1), self._arm_ids(batch), np.ones(n, np.float32)))

    # -- learning

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`. Up to `batch` - 1 examples wait for more before they count."""
        require_finite(features=examples.features.values, rewards=examples.rewards, times_s=examples.times_s)
        rewards = examples.rewards.astype(np.float64)
        if self._params.link == "logit" and len(rewards) and not (rewards.min() >= 0 and rewards.max() <= 1):
            wrong = float(rewards[(rewards < 0) | (rewards > 1)][0])
            raise InvalidBatch(
                f"{wrong} is not in [0, 1], as link logit needs; use identity", field="rewards", value=wrong
            )
        batch = self._waiting.before(Batch(self._with_arms(examples.features, examples), rewards, examples.times_s))
        start = 0
        while start + (size := self._next_batch()) <= len(batch.rewards):
            self._learn(batch.part(start, start + size))
            start += size
        self._waiting = batch.part(start, len(batch.rewards))

    @property
    def unchanged_for(self) -> int:
        """Up to how many decisions scores stay as they are, if an example is learned after each: the last one's fills
        the mini-batch."""
        return self._next_batch() - len(self._waiting.rewards)

    def _next_batch(self) -> int:
        grown = 1 << max((self._seen >> 6).bit_length() - 1, 0)
        return min(max(grown, self.first_batch), max(self._params.batch, self.first_batch))

    def _learn(self, batch: Batch) -> NDArray[np.float64]:
        """Takes in one mini-batch. Returns the residuals, float64[n]: predictions before it less rewards."""
        # Here, not when the examples arrive: what `distinct` reorders must not depend on how they were cut.
        features = distinct(batch.features)
        entries, new = self._table.claim(features.ids)
        self._sort(batch, features, entries, new)
        group, owner = Grouping.of(entries), segments.owners(features.offsets)
        x, share = self._measure(group, features.values)
        crossed = features.ids >= CROSSED
        step = Step(features.offsets, owner, entries, new, group, x, share, batch.rewards, crossed)
        residuals = np.asarray(self._step(step), np.float64)
        n = min(self._seen + _FIRST_RESIDUALS + len(residuals), _RESIDUALS)
        self._residual += (np.square(residuals).mean() - self._residual) * (len(residuals) / n)
        self._table.touch(entries, batch.times_s[owner])
        before, self._seen = self._seen, self._seen + len(batch.rewards)
        self._now_s = max(self._now_s, float(batch.times_s.max()))
        self._learned(step, residuals, before)
        if not self._again and prior_width.due(before, self._seen):
            self._read_widths()
        self._forget()
        if before // RETIRE_EVERY != self._seen // RETIRE_EVERY:
            self._table.retire(self._now_s, self._params.max_features, self._params.retire_after)
        return residuals

    def _sort(self, batch: Batch, features: SparseRows, entries: Rows, new: Rows) -> None:
        """What kind each new feature of a mini-batch is of; `features`: its rows, each feature once."""
        if not len(new):
            return
        rows = batch.features
        arms = None if self._params.arm == "none" else rows.ids[rows.offsets[1:] - 1]
        fresh = entries >= new[0]
        kinds = prior_width.kinds(features, arms)[fresh]
        self._table["kind"][entries[fresh]] = kinds
        self._table["precision"][entries[fresh]] = self._widths.of(kinds)

    def _read_widths(self) -> None:
        table, noise = self._table, self._size**2 if self._params.link == "identity" else 1.0
        self._widths.read(table.column("kind"), table.column("weight"), table.column("precision"), noise)

    def _measure(self, group: Grouping, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """`Step.x` and `Step.share`, after the units have taken these values in. A value of 0 is as good as none."""
        seen, unit = self._table["seen"], self._table["unit"]
        before, old = seen[group.rows].astype(np.float64), unit[group.rows].astype(np.float64)
        square = np.square(values, dtype=np.float64)
        power = before / (old * old) + group.sums(square)
        count = group.sums((square > 0).astype(np.float64))
        now = before + count
        unit[group.rows] = np.sqrt(np.divide(now, power, out=np.ones_like(power), where=power > 0))
        seen[group.rows] = now
        self._plain = self._plain and bool((unit[group.rows] == 1).all())
        x = np.clip(values * unit[group.rows][group.member], -_MOST_UNITS, _MOST_UNITS)
        return x, count / np.maximum(now, 1.0)

    def start_epoch(self) -> None:
        """See `Policy.start_epoch`."""
        # Halved, so that a feature's count stays near that of one pass: it is what the prior is spread over.
        self._table.column("seen")[:] *= np.float32(_KEPT_PER_PASS)
        self._start_pass()

    def _forget(self) -> None:
        half_life_s = self._params.half_life
        if half_life_s is None:
            return
        if not np.isfinite(self._faded_s):
            self._faded_s = self._now_s
        elapsed_s = self._now_s - self._faded_s
        # A sweep over the whole table now and then, instead of an exponential for each feature of each example.
        if elapsed_s * _FADES_PER_HALF_LIFE >= half_life_s:
            left = float(decay(np.array([elapsed_s]), half_life_s)[0])
            self._table.column("seen")[:] *= np.float32(left)
            self._fade(left)
            self._faded_s = self._now_s

    # -- saving

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: the table's, the subclass's, counters, and the examples that wait ("waiting_...")."""
        return {
            **self._table.tensors(),
            **{name: array.copy() for name, array in self._dense().items()},
            "examples": np.array([self._seen], np.int64),
            "residual": self._residual.copy(),
            "intercept": self._intercept.copy(),
            "prior": self._widths.now.copy(),
            "clock": np.array([_finite(self._now_s), _finite(self._faded_s)]),
            **self._waiting.tensors(),
        }

    @classmethod
    def from_tensors(cls, params: Any, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        policy = cls(params)
        policy._table.restore(tensors)
        policy._restore_dense(tensors)
        policy._seen = int(tensor(tensors, "examples", np.int64, (1,))[0])
        policy._residual = tensor(tensors, "residual", np.float64, (1,)).copy()
        policy._intercept = tensor(tensors, "intercept", np.float64, (2,)).copy()
        if "prior" in tensors:
            policy._widths.restore(tensor(tensors, "prior", np.float64, (prior_width.KINDS,)))
        clock = tensor(tensors, "clock", np.float64, (2,)).tolist()
        policy._now_s, policy._faded_s = (-np.inf if each == _NEVER else each for each in clock)
        policy._waiting = Batch.from_tensors(tensors)
        policy._plain = bool((policy._table["unit"] == 1).all())
        return policy

    def merge(self, other: Self) -> None:
        """Raises `NotMergeable`: a point estimate that was found step by step is no sum."""
        raise NotMergeable("keeps estimates, not sums", field=self.name)


_NEVER = float(np.finfo(np.float64).min)


def _finite(time_s: float) -> float:
    return time_s if np.isfinite(time_s) else _NEVER


def _borders(offsets: NDArray[np.int64]) -> list[int]:
    """Cuts decisions into runs of about so many candidates that what is gathered for them stays in the cache."""
    blocks = offsets[:-1] // _SCORE_AT_ONCE
    return [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(offsets) - 1]
