"""From named fields to hashed features, for a whole batch of decisions at once.

Every side (user, content) of a decision has a fixed list of fields, so its features are a dense block: one column a
field, or as many as `multi_valued` says for a field that holds a list. The engine keeps the blocks of contents in its
catalog, hashed once per content version, and gathers their rows. Crosses of the user's side with the content's are
then a mix of two columns (`hashing.cross`), without any string.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import product
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from banditmesh.bandits import hashing, segments
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.blocks import Column, Crosses, FieldBlock
from banditmesh.bandits.errors import InvalidFeature
from banditmesh.bandits.names import FieldName

Value = str | float | int | bool | Sequence[str] | None
Fields = Mapping[str, Value]

COMPUTED: Final = ("hour", "weekday")
"""The names in `FeatureSpec.context` that are worked out from the decision's time."""

_LARGEST: Final = float(np.finfo(np.float32).max)
_QUARTER_S: Final = 900  # every offset of a time zone that is in use is a multiple of 15 minutes
_HOURS: Final = np.array([hashing.categorical_id("hour", str(hour)) for hour in range(24)], np.uint32)
_WEEKDAYS: Final = np.array([hashing.categorical_id("weekday", str(day)) for day in range(7)], np.uint32)

_remembered_id = lru_cache(maxsize=1 << 18)(hashing.categorical_id)
_numeric_id = lru_cache(maxsize=1 << 12)(hashing.numeric_id)


def _categorical_id(name: str, value: str) -> int:
    if len(value) > hashing.LONGEST_REMEMBERED:
        return hashing.categorical_id(name, value)
    return _remembered_id(name, value)


class FeatureSpec(BaseModel):
    """Which fields of a decision become features. A field that a decision does not have gives no feature.

    A list of strings is a set of categories: each different one is a feature of value 1, the first ones up to the
    field's number of columns. A list in a field that `multi_valued` does not name counts by its first value alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: tuple[FieldName, ...] = Field(default=(), description="Fields of the user's imported profile.")
    state: tuple[str, ...] = Field(
        default=(),
        description="Counts of the user, in buckets that double: feedback, clicks, mutes, shown, shown_today (UTC).",
    )
    context: tuple[FieldName, ...] = Field(
        default=(),
        description="Of the moment. From the decision's local time: hour (0-23), weekday (0 is Monday), as categories. "
        "Any other name is looked up in the context that came with the request.",
    )
    content: tuple[FieldName, ...] = Field(
        default=(),
        description="Fields of the content. The engine adds service, logic, and what tires a user: content_shown (how "
        "often the user was shown it, in 8 days) and service_shown (something of its service, today).",
    )
    candidate: tuple[Literal["score", "rank"], ...] = Field(
        default=(),
        description="What the candidate's source says of it: score (the mapping's, or the retriever's, as a number) "
        "and rank (its place there, from 0, in buckets that double). Where two sources propose it, the first one's.",
    )
    multi_valued: dict[str, Annotated[int, Field(ge=2, le=16)]] = Field(
        default_factory=dict,
        description="How many values count, 2 to 16, of a profile or content field that holds a list (genres).",
    )
    crosses: tuple[tuple[str, str], ...] = Field(
        default=(), description="Pairs of the fields above, as features of their own; of a list each value is crossed."
    )
    time_zone: str = Field(
        default="UTC",
        description="Zone of hour and weekday, such as Asia/Tokyo, where the user's own is not said: `time_zone` of "
        "the request's context, else of the profile.",
    )

    @property
    def user(self) -> tuple[str, ...]:
        """The fields of the user's side, in the order of the user block's columns."""
        return (*self.profile, *self.state, *self.context)

    @property
    def own(self) -> tuple[str, ...]:
        """The fields of the candidate's side, in the order of the content block's columns."""
        return (*self.content, *self.candidate)

    @property
    def user_columns(self) -> int:
        """How many columns the user's side has."""
        return sum(map(len, self.columns(self.user).values()))

    @property
    def content_columns(self) -> int:
        """How many columns the candidate's side has."""
        return sum(map(len, self.columns(self.own).values()))

    @property
    def most_features(self) -> int:
        """How many features a decision has at most, crosses included: one a column, one a pair of crossed columns."""
        width = {name: len(columns) for name, columns in self.columns((*self.user, *self.own)).items()}
        return sum(width.values()) + sum(width[left] * width[right] for left, right in self.crosses)

    def columns(self, fields: Sequence[str]) -> dict[str, range]:
        """The columns of each of these fields in a block that has them side by side in this order."""
        found, start = {}, 0
        for name in fields:
            found[name] = range(start, start + self.multi_valued.get(name, 1))
            start = found[name].stop
        return found

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"no time zone is called {name!r}") from error
        return name

    @model_validator(mode="after")
    def _names_are_sound(self) -> FeatureSpec:
        names = (*self.user, *self.own)
        if "" in names or any("=" in name for name in names):
            raise ValueError("a field name must not be empty or contain '='")
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(f"field {twice[0]!r} stands twice; one name is one feature")
        for name in self.multi_valued:
            if name not in (*self.profile, *self.content):
                raise ValueError(f"multi_valued: {name!r} is no field of profile or content")
        for pair in self.crosses:
            for name in pair:
                if name not in names:
                    raise ValueError(f"crosses: field {name!r} is none of {', '.join(names) or '(no fields)'}")
            if pair[0] == pair[1]:
                raise ValueError(f"crosses: field {pair[0]!r} is crossed with itself")
        return self


class Featurizer:
    """A `FeatureSpec` at work.

    Args:
        spec: the fields.
        strict: True raises `InvalidFeature` for a broken value (to check input); False leaves it out and counts it in
            `dropped` (to serve: one broken value must not empty the slot).

    Attributes:
        dropped: how many broken values each field has had.
    """

    def __init__(self, spec: FeatureSpec, *, strict: bool = True) -> None:
        self.spec = spec
        self.strict = strict
        self.dropped: Counter[str] = Counter()
        self._zone = ZoneInfo(spec.time_zone)
        users, candidates = spec.columns(spec.user), spec.columns(spec.own)
        self._profile = {name: users[name] for name in spec.profile}
        self._state = {name: users[name] for name in spec.state}
        self._requested = {name: users[name] for name in spec.context if name not in COMPUTED}
        self._computed = {name: users[name].start for name in spec.context if name in COMPUTED}
        self._content = {name: candidates[name] for name in spec.content}
        side: dict[str, list[Column]] = {name: [("user", at) for at in columns] for name, columns in users.items()}
        side |= {name: [("content", at) for at in columns] for name, columns in candidates.items()}
        crosses = [pair for left, right in spec.crosses for pair in product(side[left], side[right])]
        shared = [pair for pair in crosses if pair[0][0] == pair[1][0] == "user"]
        own = [pair for pair in crosses if "content" in (pair[0][0], pair[1][0])]
        self._shared_crosses = Crosses(shared, spec.content_columns)
        self._own_crosses = Crosses(own, spec.content_columns)

    def users(
        self,
        profiles: Sequence[Fields],
        states: Sequence[Fields],
        times_s: NDArray[np.float64],
        contexts: Sequence[Fields] | None = None,
    ) -> FieldBlock:
        """The users' sides of n decisions, with the columns of `spec.user`.

        Args:
            profiles, states: of each decision's user.
            times_s: float64[n], seconds since 1970.
            contexts: what came with each request, such as the device; None: nothing did.
        """
        ids = np.zeros((len(profiles), self.spec.user_columns), np.uint32)
        values = np.zeros(ids.shape, np.float32)
        sides = [(self._profile, profiles), (self._state, states)]
        if self._requested and contexts is not None:
            sides.append((self._requested, contexts))
        for columns, side in sides:
            for row, fields in zip(range(len(ids)), side, strict=True):
                self._fill(ids[row], values[row], columns, fields)
        if self._computed:
            hours = self._local_hours(times_s)
            for name, column in self._computed.items():
                # 1970-01-01 was a Thursday, day 3 of a week that starts on Monday.
                ids[:, column] = _HOURS[hours % 24] if name == "hour" else _WEEKDAYS[(hours // 24 + 3) % 7]
                values[:, column] = 1.0
        return FieldBlock(ids, values)

    def contents(self, contents: Sequence[Fields]) -> FieldBlock:
        """The contents' sides, with the columns of `spec.own`; made once per content version, for the catalog. Those of
        `spec.candidate` are left to be filled for each candidate."""
        ids = np.zeros((len(contents), self.spec.content_columns), np.uint32)
        values = np.zeros(ids.shape, np.float32)
        for row, fields in enumerate(contents):
            self._fill(ids[row], values[row], self._content, fields)
        return FieldBlock(ids, values)

    def rows(
        self, users: FieldBlock, contents: FieldBlock, offsets: NDArray[np.int64]
    ) -> tuple[SparseRows, SparseRows]:
        """The features of a batch: what a decision's candidates share, and what each has of its own.

        Args:
            users: n_decisions rows.
            contents: n_candidates rows, gathered from the catalog.
            offsets: int64[n_decisions + 1], decision i owns the candidates offsets[i]:offsets[i + 1].

        Returns:
            `Candidates.context` (the user's fields, then their crosses) and `Candidates.features` (the content's
            fields, then the crosses that involve them).
        """
        context, own = users, contents
        if self._shared_crosses:
            context = users.beside(self._shared_crosses.of(users, contents, np.arange(len(offsets) - 1)))
        if self._own_crosses:
            own = contents.beside(self._own_crosses.of(users, contents, segments.owners(offsets)))
        return context.sparse(), own.sparse()

    def _fill(
        self, ids: NDArray[np.uint32], values: NDArray[np.float32], columns: Mapping[str, range], fields: Fields
    ) -> None:
        for name, places in columns.items():
            value = fields.get(name)
            if value is None:
                continue
            if isinstance(value, bool):
                value = "true" if value else "false"
            if isinstance(value, str):
                ids[places.start], values[places.start] = _categorical_id(name, value), 1.0
            elif isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
                # zip stops with the shorter: absent values leave zeros, those beyond the columns do not count.
                for place, each in zip(places, dict.fromkeys(value), strict=False):
                    ids[place], values[place] = _categorical_id(name, each), 1.0
            elif _is_number(value):
                ids[places.start], values[places.start] = _numeric_id(name), value
            elif self.strict:
                message = f"{value!r} is neither a string, a list of strings nor a finite number within float32"
                raise InvalidFeature(message, field=name, value=value)
            else:
                self.dropped[name] += 1

    def _local_hours(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """int64[n]: whole hours since 1970-01-01 00:00 on the zone's own clock."""
        quarters, which = np.unique(np.floor_divide(times_s, _QUARTER_S).astype(np.int64), return_inverse=True)
        # The decisions of a batch are seconds apart: one quarter of an hour, rarely two.
        local_s = [quarter * _QUARTER_S + self._utc_offset_s(quarter * _QUARTER_S) for quarter in quarters.tolist()]
        return (np.array(local_s, np.int64) // 3600)[which]

    def _utc_offset_s(self, time_s: int) -> int:
        offset = datetime.fromtimestamp(time_s, UTC).astimezone(self._zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())


def _is_number(value: object) -> bool:
    # NaN is within no range; an int of any size compares exactly.
    return isinstance(value, int | float) and -_LARGEST <= value <= _LARGEST
