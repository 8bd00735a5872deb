"""Popularity: the discounted mean reward of each content, whoever looks at it. A baseline, and the fallback.

For each content: n = sum w_i, s = sum w_i r_i with w_i = 2^(-age_i / half-life). The mean is that of a normal posterior
with known noise: (s + n0 r0) / (n + n0), its deviation noise / sqrt(n + n0), with the prior worth n0 examples of r0.
Unless they are given, r0 and the noise are mean and deviation of the rewards of all contents (empirical Bayes), for
with one example of a fair coin before them: where one click in a thousand is usual, a prior of 0.5 would show what is
new for ever. It remembers the names of contents, so that a snapshot alone can answer when everything else is away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits.arms import DecayedSums, decay, spans
from banditmesh.bandits.batch import Candidates, Examples, Scores, require_finite
from banditmesh.bandits.durations import Positive
from banditmesh.bandits.errors import InvalidTensors, NotMergeable
from banditmesh.bandits.policy import PerArmParams, PolicyParams, Tensors, tensor

Name = tuple[str, str]
_DAY_S = 86_400.0


class PopularityParams(PerArmParams):
    """Parameters of `popularity`."""

    max_arms: int = Field(
        default=100_000, ge=1, description="Contents kept; beyond this the ones shown longest ago go."
    )
    half_life: Positive | None = Field(
        default=_DAY_S, description="Age at which an example counts half; null never forgets."
    )
    prior_reward: float | None = Field(
        default=None,
        description="Expected reward of a content before anything is known of it; null: the mean of all rewards.",
    )
    prior_weight: float = Field(default=10.0, gt=0, description="How many examples the prior is worth.")
    noise: float | None = Field(
        default=None,
        gt=0,
        description="Standard deviation of one reward, for the deviation of the mean; null: that of all rewards.",
    )


class Popular(NamedTuple):
    """A content of the top list. `name` is (service, content id), or None when it was never told."""

    key: int
    name: Name | None
    mean: float


class Popularity:
    """See the module.

    State of a content: sums of weights and of rewards, decayed to its own last time; its name. Of all contents: sums of
    weights, of rewards and of their squares, and the time up to which they are decayed.
    """

    name: ClassVar[str] = "popularity"
    Params: ClassVar[type[PolicyParams]] = PopularityParams
    learns: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    def __init__(self, params: PopularityParams | None = None) -> None:
        self.params = params or PopularityParams()
        self._start()

    def _start(self) -> None:
        self._arms = DecayedSums()
        self._names: dict[int, Name] = {}
        self._pool = np.zeros(4)
        self._seen = 0
        self._now_s = 0.0

    @property
    def _prior(self) -> tuple[float, float]:
        """Expected reward of an unseen content, and the noise."""
        weight, total, squares, last_s = self._pool.tolist()
        left = float(decay(np.array(self._now_s - last_s), self.params.half_life))
        weight, mean, square = weight * left + 1.0, total * left + 0.5, squares * left + 0.5
        mean, square = mean / weight, square / weight
        params = self.params
        return (
            mean if params.prior_reward is None else params.prior_reward,
            max(square - mean * mean, 0.25 / weight) ** 0.5 if params.noise is None else params.noise,
        )

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`."""
        slots = self._arms.find(candidates.contents)
        prior, noise = self._prior
        mean = np.full(len(slots), prior, np.float32)
        deviation = np.full(len(slots), noise * self.params.prior_weight**-0.5, np.float32)
        known = slots >= 0
        mean[known], weight = self._posterior(slots[known])
        deviation[known] = noise / np.sqrt(weight)
        return Scores(mean, deviation)

    def _posterior(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and weight, the prior included, as of the latest time seen: float64[n] each."""
        weight, reward = self._arms.at(slots, self._now_s, self.params.half_life)
        weight += self.params.prior_weight
        return (reward + self.params.prior_weight * self._prior[0]) / weight, weight

    def top(self, n: int) -> list[Popular]:
        """The n contents of the highest mean, best first; equal ones by key, so that every replica agrees."""
        mean, _ = self._posterior(np.arange(len(self._arms)))
        keys = self._arms.keys()
        best = np.lexsort((keys, -mean))[:n]
        return [Popular(int(keys[at]), self._names.get(int(keys[at])), float(mean[at])) for at in best]

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`. Remembers `examples.names` when they are given."""
        require_finite(rewards=examples.rewards, times_s=examples.times_s)
        for span, may_retire in spans(self._seen, len(examples)):
            times_s = examples.times_s[span]
            self._arms.add(examples.contents[span], examples.rewards[span], times_s, self.params.half_life)
            self._now_s = max(self._now_s, float(times_s.max()))
            self._add_to_pool(examples.rewards[span].astype(np.float64), times_s)
            if examples.names is not None:
                self._names.update(zip(examples.contents[span].tolist(), examples.names[span], strict=True))
            if may_retire:
                self._retire()
        self._seen += len(examples)

    def _add_to_pool(self, rewards: NDArray[np.float64], times_s: NDArray[np.float64]) -> None:
        weight, total, squares, last_s = self._pool.tolist()
        now_s = np.maximum.accumulate(np.append(last_s if weight else times_s[0], times_s))
        half_life = self.params.half_life
        faded, own = decay(np.diff(now_s), half_life).tolist(), decay(now_s[1:] - times_s, half_life).tolist()
        # One after the other, so that the bits do not depend on how a stream was cut.
        for reward, left, part in zip(rewards.tolist(), faded, own, strict=True):
            weight = weight * left + part
            total = total * left + part * reward
            squares = squares * left + part * reward * reward
        self._pool = np.array([weight, total, squares, float(now_s[-1])])

    def _retire(self) -> None:
        for key in self._arms.retire(self.params, self._now_s).tolist():
            self._names.pop(key, None)

    def start_epoch(self) -> None:
        """See `Policy.start_epoch`: all sums start from nothing."""
        self._start()

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: per content "weight", "reward", "last_s"; its name in "names" and "name_offsets".

        "names" (uint8) holds the UTF-8 of service, content id, service, content id, … of the contents in order;
        "name_offsets" (int64[2 n + 1]) cuts them. An unknown name is two empty strings.
        """
        state = self._arms.tensors()
        unknown = ("", "")
        parts = [part.encode() for key in state["arms"].tolist() for part in self._names.get(key, unknown)]
        return {
            **state,
            "names": np.frombuffer(b"".join(parts), np.uint8).copy(),
            "name_offsets": np.cumsum([0, *map(len, parts)], dtype=np.int64),
            "pool": self._pool.copy(),
            "examples": np.array([self._seen], np.int64),
            "now_s": np.array([self._now_s]),
        }

    @classmethod
    def from_tensors(cls, params: PopularityParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        policy = cls(params)
        policy._arms.restore(tensors)
        policy._names = _unpack(
            policy._arms.keys().tolist(),
            tensor(tensors, "names", np.uint8, (None,)).tobytes(),
            tensor(tensors, "name_offsets", np.int64, (2 * len(policy._arms) + 1,)).tolist(),
        )
        policy._pool = tensor(tensors, "pool", np.float64, (4,)).copy()
        policy._seen = int(tensor(tensors, "examples", np.int64, (1,))[0])
        policy._now_s = float(tensor(tensors, "now_s", np.float64, (1,))[0])
        return policy

    def merge(self, other: Self) -> None:
        """See `Policy.merge`: the sums of shared contents are decayed to the later of both times and added."""
        if other.params != self.params:
            raise NotMergeable("the parameters differ", field="popularity", value=other.params)
        self._arms.join(other._arms, self.params.half_life)
        if other._pool[0]:
            last = np.array([max(self._pool[3], other._pool[3]) if self._pool[0] else other._pool[3]])
            mine, theirs = (
                self._pool[:3] * decay(last - self._pool[3], self.params.half_life),
                other._pool[:3] * decay(last - other._pool[3], self.params.half_life),
            )
            self._pool = np.append(mine + theirs, last)
        self._names.update(other._names)
        self._now_s = max(self._now_s, other._now_s)
        self._seen += other._seen
        self._retire()


def _unpack(keys: Sequence[int], packed: bytes, offsets: Sequence[int]) -> dict[int, Name]:
    """The names by key; `InvalidTensors` when the offsets do not cut `packed` or a part is not UTF-8."""
    if offsets[0] != 0 or offsets[-1] != len(packed) or any(a > b for a, b in pairwise(offsets)):
        raise InvalidTensors("do not cut the tensor names", field="name_offsets")
    try:
        parts = [packed[start:stop].decode() for start, stop in pairwise(offsets)]
    except UnicodeDecodeError as error:
        raise InvalidTensors(f"is not UTF-8: {error}", field="names") from error
    pairs = zip(keys, parts[::2], parts[1::2], strict=True)
    return {key: (service, content_id) for key, service, content_id in pairs if service or content_id}
