"""A blend that begins with what is popular and goes over to taste as feedback comes.

A user's score of a content is (1 - w) · popular + w · personal, with w = n / (n + k) for a user who has given feedback
n times: 0 for a new one, smooth from the first on, one half at n = k.

The two have different units: `popular` is an expected reward, `personal` whatever its policy says. So the personal
scores of a decision's candidates are brought to the mean and the spread that the popular ones have there; their order
and their relative distances stay. Of a candidate that the personal policy does not know, and where the user is unknown
to it, the popular score counts alone.

Popular is the decayed mean reward of each content (`popularity`), by choice of each content among users of one country,
hour band, weekday: a cell's mean is drawn to the content's own as if that were worth `prior_weight` examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from banditmesh.bandits import hashing, segments
from banditmesh.bandits.als import Als, AlsParams
from banditmesh.bandits.batch import Candidates, Examples, Scores, SparseRows
from banditmesh.bandits.durations import Positive, written
from banditmesh.bandits.errors import InvalidTensors, NotMergeable
from banditmesh.bandits.policy import PolicyParams, Tensors
from banditmesh.bandits.popularity import Popularity, PopularityParams

Split = Literal["country", "hour", "weekday"]
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FLAT: Final = 1e-9


class Personal(BaseModel):
    """Which policy knows the user's taste."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    als: AlsParams = Field(description="Implicit ALS, by `banditmesh als fit`; its parameters.")


class PopularParams(BaseModel):
    """What counts as popular."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    half_life: Positive = Field(default=7 * 86_400.0, description="Age at which an example counts half.")
    by: tuple[Split, ...] = Field(
        default=(), description="Counted apart by these, too: country, hour, weekday; features of the placement."
    )
    hours: int = Field(default=6, description="Hours of a band of the day, with `hour` in `by`: 1, 2, 3, 4, 6, 8, 12.")
    prior_reward: float = Field(default=0.5, description="Expected reward of a content of which nothing is known.")
    prior_weight: float = Field(default=10.0, gt=0, description="How many examples the prior is worth.")
    noise: float = Field(default=0.5, gt=0, description="Standard deviation of one reward.")
    max_contents: int = Field(default=100_000, ge=1, description="Contents (and cells) that are counted at most.")

    @model_validator(mode="after")
    def _bands_fill_the_day(self) -> Self:
        if self.hours < 1 or 24 % self.hours:
            raise ValueError(f"hours: {self.hours} does not divide the day; 1, 2, 3, 4, 6, 8 or 12")
        if len(set(self.by)) < len(self.by):
            raise ValueError("by: a name stands twice")
        return self


class BlendParams(PolicyParams):
    """Parameters of `blend`."""

    personal: Personal = Field(default=Personal(als=AlsParams()), description="The user's taste: {als: {…}}.")
    popular: PopularParams = Field(default_factory=PopularParams, description="Everybody's: {half_life: 7d}.")
    k: float = Field(default=10.0, gt=0, description="Feedback after which taste and popularity weigh the same.")

    @property
    def stands_on(self) -> Mapping[str, Mapping[str, Any]]:
        """See `PolicyParams.stands_on`."""
        return {Als.name: self.personal.als.model_dump(mode="json")}


class Blend:
    """See the module. `personal` is set by whoever loads models: the fit of `als` has a snapshot of its own."""

    name: ClassVar[str] = "blend"
    Params: ClassVar[type[PolicyParams]] = BlendParams
    learns: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    shares: ClassVar[bool] = False

    def __init__(self, params: BlendParams | None = None) -> None:
        self.params = params or BlendParams()
        popular = self.params.popular
        counted = PopularityParams(
            max_arms=popular.max_contents,
            half_life=written(popular.half_life),
            prior_reward=popular.prior_reward,
            prior_weight=popular.prior_weight,
            noise=popular.noise,
        )
        self._all = Popularity(counted)
        self._cells = Popularity(counted)
        self.personal = Als(self.params.personal.als)

    def standing_on(self, personal: Als) -> Blend:
        """The same counters beside another fit of the personal policy; neither is changed."""
        other = Blend(self.params)
        other._all, other._cells, other.personal = self._all, self._cells, personal
        return other

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`."""
        popular = self._popular(candidates)
        feedback = candidates.feedback
        if feedback is None or not feedback.counts.any():
            return popular
        known = self.personal.knows(candidates)
        if not known.any():
            return popular
        weight = (feedback.counts / (feedback.counts + self.params.k))[segments.owners(candidates.offsets)]
        weight = np.where(known, weight, 0.0)
        personal = self.personal.score(candidates).mean.astype(np.float64)
        alike = _in_units_of(popular.mean.astype(np.float64), personal, known, candidates.offsets, popular.deviation)
        mean = (1.0 - weight) * popular.mean + weight * alike
        return Scores(mean.astype(np.float32), ((1.0 - weight) * popular.deviation).astype(np.float32))

    def weight(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64[n]: w of users who gave feedback so often."""
        return np.asarray(counts / (counts + self.params.k))

    def _popular(self, candidates: Candidates) -> Scores:
        overall = self._all.score(candidates)
        if not self.params.popular.by:
            return overall
        owners = segments.owners(candidates.offsets)
        cells = self._segments.of(candidates.context)[owners]
        known = cells != 0
        found = self._cells.score(replace(candidates, contents=_cell_keys(candidates.contents, cells)))
        popular = self.params.popular
        # (s + n0 r0) / (n + n0), with the content's own mean in the place of r0.
        share = popular.prior_weight * (found.deviation.astype(np.float64) / popular.noise) ** 2
        mean = found.mean + share * (overall.mean.astype(np.float64) - popular.prior_reward)
        return Scores(np.where(known, mean, overall.mean).astype(np.float32), overall.deviation)

    @cached_property
    def _segments(self) -> Segments:
        return Segments(self.params.popular.by, self.params.popular.hours)

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`: counts what was shown and earned; the personal part does not change."""
        self.personal.learn(examples)
        self._all.learn(examples)
        if self.params.popular.by:
            cells = self._segments.of(examples.features)
            keys = _cell_keys(examples.contents, cells)
            self._cells.learn(replace(examples, contents=keys, names=None))

    def start_epoch(self) -> None:
        """See `Policy.start_epoch`."""
        self._all.start_epoch()
        self._cells.start_epoch()

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: those of `popularity`, of all ("all.") and of cells ("cells.")."""
        return {
            **{f"all.{name}": array for name, array in self._all.tensors().items()},
            **{f"cells.{name}": array for name, array in self._cells.tensors().items()},
        }

    @classmethod
    def from_tensors(cls, params: BlendParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`. The personal part stands at its prior."""
        policy = cls(params)
        policy._all = _counted(policy._all.params, tensors, "all.")
        policy._cells = _counted(policy._cells.params, tensors, "cells.")
        return policy

    def merge(self, other: Self) -> None:
        """See `Policy.merge`."""
        if other.params != self.params:
            raise NotMergeable("the parameters differ", field="blend", value=other.params)
        self._all.merge(other._all)
        self._cells.merge(other._cells)


class Segments:
    """Tells from the hashed features of a decision in which cell of country, hour band and weekday it is.

    A feature's id is the hash of its name and value, so all ids that can be are looked up the other way round.
    """

    def __init__(self, by: tuple[Split, ...], hours: int) -> None:
        names: list[tuple[str, str, str]] = []
        if "country" in by:
            codes = [a + b for a in _LETTERS for b in _LETTERS]
            names += [("country", each, code) for code in codes for each in (code, code.lower())]
        if "hour" in by:
            names += [("hour", str(hour), f"hour {hour // hours}") for hour in range(24)]
        if "weekday" in by:
            names += [("weekday", str(day), f"weekday {day}") for day in range(7)]
        ids = np.array([hashing.categorical_id(field, value) for field, value, _ in names], np.uint32)
        order = np.argsort(ids)
        self._ids = ids[order]
        self._keys = np.array([hashing.key64(cell) for _, _, cell in names], np.uint64)[order]

    def of(self, rows: SparseRows) -> NDArray[np.uint64]:
        """uint64[n_rows]: the cell of each row of features; 0: none of its features says anything."""
        at = np.minimum(np.searchsorted(self._ids, rows.ids), len(self._ids) - 1)
        keys = np.where(self._ids[at] == rows.ids, self._keys[at], np.uint64(0))
        return segments.sums(keys, rows.offsets)


def _cell_keys(contents: NDArray[np.uint64], cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """uint64[n]: a key of a content in a cell."""
    return np.asarray(hashing.mix64(contents ^ hashing.mix64(cells)))


def _counted(params: PopularityParams, tensors: Mapping[str, NDArray[Any]], prefix: str) -> Popularity:
    inside = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    try:
        return Popularity.from_tensors(params, inside)
    except InvalidTensors as error:
        message = str(error).removeprefix(f"{error.field}: ")
        raise InvalidTensors(message, field=f"{prefix}{error.field}", value=error.value) from error


def _in_units_of(
    popular: NDArray[np.float64],
    personal: NDArray[np.float64],
    known: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    deviation: NDArray[np.float32],
) -> NDArray[np.float64]:
    """float64[n]: the personal scores moved and stretched to the mean and spread of the popular ones, within each
    decision and over what is known there. Where all popular ones are equal, their uncertainty is the spread."""
    counts = segments.lengths(offsets)
    n = np.maximum(segments.sums(known.astype(np.float64), offsets), 1.0)

    def moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mean = segments.sums(np.where(known, values, 0.0), offsets) / n
        apart = np.where(known, values - np.repeat(mean, counts), 0.0)
        return mean, np.sqrt(segments.sums(apart**2, offsets) / n)

    (mean, spread), (own_mean, own_spread) = moments(popular), moments(personal)
    unsure = segments.sums(np.where(known, deviation, 0.0).astype(np.float64), offsets) / n
    spread = np.where(spread > _FLAT, spread, unsure)
    scale = np.where(own_spread > _FLAT, spread / np.maximum(own_spread, _FLAT), 0.0)
    return np.asarray(np.repeat(mean, counts) + np.repeat(scale, counts) * (personal - np.repeat(own_mean, counts)))
