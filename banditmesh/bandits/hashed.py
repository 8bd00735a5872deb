"""What `linear`, `fm` and `nfm` share: hashed features in a table, arms as features, mini-batches cut by count.

A row's features are those of the decision and the candidate, and one for the arm itself. Examples are learned in
mini-batches whose borders depend on the number of examples alone: batches begin with `first_batch`, are never more
than 1/16 of what was seen before, and grow to `batch` (all powers of two). What does not fill a batch yet waits in the
state, and is saved with it. So the state is a function of the sequence of examples, however it was cut, and early on
a model is never far behind its examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from banditmesh.bandits import segments
from banditmesh.bandits.arms import RETIRE_EVERY, arm_keys, decay
from banditmesh.bandits.batch import Candidates, Examples, Scores, SparseRows, require_finite
from banditmesh.bandits.errors import InvalidBatch, InvalidTensors, NotMergeable
from banditmesh.bandits.hashing import mix64
from banditmesh.bandits.link import Link, inverse
from banditmesh.bandits.policy import PolicyParams, Tensors, tensor
from banditmesh.bandits.table import Column, FeatureTable

_FADES_PER_HALF_LIFE = 64
_SCORE_AT_ONCE = 1024


class HashedParams(PolicyParams):
    """Parameters that `linear`, `fm` and `nfm` share."""

    arm: Literal["content", "logic", "service", "none"] = Field(
        default="content", description="What is a feature of its own beside those given; none: nothing is."
    )
    link: Link = Field(
        default="identity",
        description="identity: squared error, for any reward. logit: log loss, for rewards from 0 to 1 (clicks).",
    )
    prior_reward: float = Field(default=0.5, description="Expected reward before anything is known.")
    ridge: float = Field(default=3.0, gt=0, description="Precision of the prior on each weight, in examples.")
    noise: float = Field(
        default=0.5, gt=0, description="Standard deviation of one reward under link identity, for the deviation."
    )
    batch: int = Field(default=256, ge=1, le=65536, description="Examples of one step, a power of two.")
    bits: int = Field(default=22, ge=1, le=28, description="Feature ids are folded to so many bits.")
    max_features: int = Field(
        default=1 << 22, ge=1, description="Features kept; beyond this the ones seen longest ago are retired."
    )
    retire_after_s: float | None = Field(
        default=None, gt=0, description="Features not seen for so many seconds are retired; null keeps them."
    )
    half_life_s: float | None = Field(
        default=None, gt=0, description="Age in seconds at which evidence counts half (drift); null never forgets."
    )

    @field_validator("batch")
    @classmethod
    def _batch_is_a_power_of_two(cls, batch: int) -> int:
        if batch & (batch - 1):
            raise ValueError("must be a power of two")
        return batch

    def model_post_init(self, context: Any, /) -> None:
        """Rejects a prior reward that the link cannot give."""
        if self.link == "logit" and not 0 < self.prior_reward < 1:
            raise ValueError("prior_reward must lie between 0 and 1 under link logit")


class HashedPolicy(ABC):
    """See the module. A subclass has the table's columns and the dense tensors, learns one step, and scores.

    Class attributes:
        first_batch: the least number of examples of a step.
        largest: a feature's value counts up to this size, so that no sum of float32 ever overflows.
    """

    learns: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    shares: ClassVar[bool] = True
    first_batch: ClassVar[int] = 1
    largest: ClassVar[float] = 1e3

    name: ClassVar[str]

    def __init__(self, params: HashedParams) -> None:
        self._params = params
        self._table = FeatureTable(params.bits, self._columns())
        self._offset = inverse(params.link, params.prior_reward)
        self._waiting = _Batch.empty()
        self._seen = 0  # examples that were learned, without those that wait
        self._now_s = -np.inf
        self._faded_s = -np.inf

    # -- for subclasses

    @abstractmethod
    def _columns(self) -> dict[str, Column]:
        """What the table keeps of a feature."""

    @abstractmethod
    def _step(self, features: SparseRows, rewards: NDArray[np.float64], times_s: NDArray[np.float64]) -> None:
        """One step: features have folded ids, each once in a row."""

    @abstractmethod
    def _fade(self, left: float) -> None:
        """Multiplies the evidence, above the prior, by `left`."""

    @abstractmethod
    def _dense(self) -> Tensors:
        """The tensors beside the table, as they are (not copied)."""

    @abstractmethod
    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what `_dense` gave. Raises `InvalidTensors`."""

    @abstractmethod
    def _score(self, candidates: Candidates) -> Scores:
        """Mean and deviation of a few decisions."""

    # -- scoring

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`."""
        borders = _borders(candidates.offsets)
        if len(borders) <= 2:
            return self._score(candidates)
        parts = [self._score(_part(candidates, start, stop)) for start, stop in pairwise(borders)]
        return Scores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    # -- features

    def _arm_ids(self, batch: Candidates | Examples) -> NDArray[np.uint32]:
        """uint32[n]: the folded feature ids of the arms. Mixed, for a key's low bits may be a feature's id."""
        return self._table.fold(mix64(arm_keys(self._params.arm, batch)).astype(np.uint32))

    def _own(self, candidates: Candidates) -> SparseRows:
        """The candidates' own features and their arms, folded, each once in a row."""
        return distinct(self._with_arms(candidates.features, candidates))

    def _shared(self, candidates: Candidates) -> SparseRows:
        """The decisions' features, folded, each once in a row."""
        return distinct(self._folded(candidates.context))

    def _folded(self, rows: SparseRows) -> SparseRows:
        return SparseRows(rows.offsets, self._table.fold(rows.ids), np.clip(rows.values, -self.largest, self.largest))

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
        batch = self._waiting.before(_Batch(self._with_arms(examples.features, examples), rewards, examples.times_s))
        start = 0
        while start + (size := self._next_batch()) <= len(batch.rewards):
            self._learn(batch.part(start, start + size))
            start += size
        self._waiting = batch.part(start, len(batch.rewards))

    def _next_batch(self) -> int:
        grown = 1 << max((self._seen >> 4).bit_length() - 1, 0)
        return min(max(grown, self.first_batch), max(self._params.batch, self.first_batch))

    def _learn(self, batch: _Batch) -> None:
        # Here, not when the examples arrive: what `distinct` reorders must not depend on how they were cut.
        self._step(distinct(batch.features), batch.rewards, batch.times_s)
        before, self._seen = self._seen, self._seen + len(batch.rewards)
        self._now_s = max(self._now_s, float(batch.times_s.max()))
        self._forget()
        if before // RETIRE_EVERY != self._seen // RETIRE_EVERY:
            self._table.retire(self._now_s, self._params.max_features, self._params.retire_after_s)

    def _forget(self) -> None:
        half_life_s = self._params.half_life_s
        if half_life_s is None:
            return
        if not np.isfinite(self._faded_s):
            self._faded_s = self._now_s
        elapsed_s = self._now_s - self._faded_s
        # A sweep over the whole table now and then, instead of an exponential for each feature of each example.
        if elapsed_s * _FADES_PER_HALF_LIFE >= half_life_s:
            self._fade(float(decay(np.array([elapsed_s]), half_life_s)[0]))
            self._faded_s = self._now_s

    # -- saving

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: the table's, the subclass's, counters, and the examples that wait ("waiting_...")."""
        waiting = self._waiting
        return {
            **self._table.tensors(),
            **{name: array.copy() for name, array in self._dense().items()},
            "examples": np.array([self._seen], np.int64),
            "clock": np.array([_finite(self._now_s), _finite(self._faded_s)]),
            "waiting_offsets": waiting.features.offsets.copy(),
            "waiting_ids": waiting.features.ids.copy(),
            "waiting_values": waiting.features.values.copy(),
            "waiting_rewards": waiting.rewards.copy(),
            "waiting_times_s": waiting.times_s.copy(),
        }

    @classmethod
    def from_tensors(cls, params: Any, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        policy = cls(params)
        policy._table.restore(tensors)
        policy._restore_dense(tensors)
        policy._seen = int(tensor(tensors, "examples", np.int64, (1,))[0])
        clock = tensor(tensors, "clock", np.float64, (2,)).tolist()
        policy._now_s, policy._faded_s = (-np.inf if each == _NEVER else each for each in clock)
        policy._waiting = _restored(tensors)
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


def _part(candidates: Candidates, start: int, stop: int) -> Candidates:
    """The decisions start:stop."""
    first, last = candidates.offsets[start], candidates.offsets[stop]
    return Candidates(
        candidates.offsets[start : stop + 1] - first,
        candidates.contents[first:last],
        candidates.logics[first:last],
        candidates.services[first:last],
        candidates.context.part(start, stop),
        candidates.features.part(int(first), int(last)),
    )


class _Batch:
    """Examples with folded features: `features` n rows, `rewards` and `times_s` float64[n]."""

    __slots__ = ("features", "rewards", "times_s")

    def __init__(self, features: SparseRows, rewards: NDArray[np.float64], times_s: NDArray[np.float64]) -> None:
        self.features, self.rewards, self.times_s = features, rewards, times_s

    @classmethod
    def empty(cls) -> _Batch:
        return cls(SparseRows.empty(0), np.zeros(0), np.zeros(0))

    def before(self, other: _Batch) -> _Batch:
        if not len(self.rewards):
            return other
        return _Batch(
            SparseRows.concat([self.features, other.features]),
            np.concatenate([self.rewards, other.rewards]),
            np.concatenate([self.times_s, other.times_s]),
        )

    def part(self, start: int, stop: int) -> _Batch:
        return _Batch(self.features.part(start, stop), self.rewards[start:stop], self.times_s[start:stop])


def _restored(tensors: Mapping[str, NDArray[Any]]) -> _Batch:
    ids = tensor(tensors, "waiting_ids", np.uint32, (None,))
    values = tensor(tensors, "waiting_values", np.float32, (len(ids),))
    rewards = tensor(tensors, "waiting_rewards", np.float64, (None,))
    times_s = tensor(tensors, "waiting_times_s", np.float64, (len(rewards),))
    offsets = tensor(tensors, "waiting_offsets", np.int64, (len(rewards) + 1,))
    if offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
        raise InvalidTensors("do not cut waiting_ids", field="waiting_offsets")
    return _Batch(SparseRows(offsets, ids, values), rewards, times_s)


def distinct(rows: SparseRows) -> SparseRows:
    """The same rows with each id once in a row, its values added up. Hardly ever anything to do, so told fast."""
    keys = (segments.owners(rows.offsets).astype(np.uint64) << np.uint64(32)) | rows.ids
    ordered = np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():
        return rows
    once, member = np.unique(keys, return_inverse=True)
    offsets = np.searchsorted(once, np.arange(len(rows) + 1, dtype=np.uint64) << np.uint64(32))
    values = np.bincount(member, rows.values).astype(np.float32)
    return SparseRows(offsets, (once & np.uint64(0xFFFFFFFF)).astype(np.uint32), values)
