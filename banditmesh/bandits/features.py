"""From named fields to hashed features, for a whole batch of decisions at once.

Every side (user, content) of a decision has a fixed list of fields, so its features are a dense block: one column a
field. The engine keeps the blocks of contents in its catalog, hashed once per content version, and gathers their rows.
Crosses of the user's side with the content's are then a mix of two columns (`hashing.cross`), without any string.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from banditmesh.bandits import hashing
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.errors import InvalidFeature

Value = str | float | int | bool | None
Fields = Mapping[str, Value]

_LARGEST: Final = float(np.finfo(np.float32).max)
_QUARTER_S: Final = 900  # every offset of a time zone that is in use is a multiple of 15 minutes
_HOURS: Final = np.array([hashing.categorical_id("hour", str(hour)) for hour in range(24)], np.uint32)
_WEEKDAYS: Final = np.array([hashing.categorical_id("weekday", str(day)) for day in range(7)], np.uint32)

_categorical_id = lru_cache(maxsize=1 << 18)(hashing.categorical_id)
_numeric_id = lru_cache(maxsize=1 << 12)(hashing.numeric_id)


class FeatureSpec(BaseModel):
    """Which fields of a decision become features. A field that a decision does not have gives no feature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: tuple[str, ...] = Field(default=(), description="Fields of the user's imported profile.")
    state: tuple[str, ...] = Field(default=(), description="Fields of the user's live state.")
    context: tuple[Literal["hour", "weekday"], ...] = Field(
        default=(), description="Of the decision's local time: hour (0-23), weekday (0 is Monday), as categories."
    )
    content: tuple[str, ...] = Field(
        default=(), description="Fields of the content; the engine adds service and logic."
    )
    crosses: tuple[tuple[str, str], ...] = Field(
        default=(), description="Pairs of the fields above, as features of their own."
    )
    time_zone: str = Field(default="UTC", description="Zone of hour and weekday, such as Asia/Tokyo.")

    @property
    def user(self) -> tuple[str, ...]:
        """The fields of the user's side, in the order of the user block's columns."""
        return (*self.profile, *self.state, *self.context)

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
        names = (*self.user, *self.content)
        if "" in names or any("=" in name for name in names):
            raise ValueError("a field name must not be empty or contain '='")
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(f"field {twice[0]!r} stands twice; one name is one feature")
        for pair in self.crosses:
            for name in pair:
                if name not in names:
                    raise ValueError(f"crosses: field {name!r} is none of {', '.join(names) or '(no fields)'}")
            if pair[0] == pair[1]:
                raise ValueError(f"crosses: field {pair[0]!r} is crossed with itself")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class FieldBlock:
    """Features of one side, a column a field. A value of 0 is no feature: to every model it is the same as absence.

    Attributes:
        ids: uint32[n_rows, n_fields].
        values: float32[n_rows, n_fields].
    """

    ids: NDArray[np.uint32]
    values: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> FieldBlock:
        """The rows of the given numbers (int64[n])."""
        return FieldBlock(self.ids[rows], self.values[rows])

    def sparse(self) -> SparseRows:
        """The same rows without what is absent, in the order of the columns."""
        present = self.values != 0.0
        offsets = np.zeros(len(present) + 1, np.int64)
        np.cumsum(present.sum(axis=1), out=offsets[1:])
        return SparseRows(offsets, self.ids[present], self.values[present])


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
        side = {name: ("user", at) for at, name in enumerate(spec.user)}
        side |= {name: ("content", at) for at, name in enumerate(spec.content)}
        crosses = [(side[left], side[right]) for left, right in spec.crosses]
        self._shared_crosses = [pair for pair in crosses if pair[0][0] == pair[1][0] == "user"]
        self._own_crosses = [pair for pair in crosses if "content" in (pair[0][0], pair[1][0])]

    def users(self, profiles: Sequence[Fields], states: Sequence[Fields], times_s: NDArray[np.float64]) -> FieldBlock:
        """The users' sides of n decisions, columns as `spec.user`. times_s: float64[n], seconds since 1970."""
        named = len(self.spec.profile) + len(self.spec.state)
        ids = np.zeros((len(profiles), len(self.spec.user)), np.uint32)
        values = np.zeros(ids.shape, np.float32)
        for row, (profile, state) in enumerate(zip(profiles, states, strict=True)):
            self._fill(ids[row], values[row], self.spec.profile, profile)
            self._fill(
                ids[row, len(self.spec.profile) :], values[row, len(self.spec.profile) :], self.spec.state, state
            )
        if self.spec.context:
            hours = self._local_hours(times_s)
            for column, name in enumerate(self.spec.context, start=named):
                # 1970-01-01 was a Thursday, day 3 of a week that starts on Monday.
                ids[:, column] = _HOURS[hours % 24] if name == "hour" else _WEEKDAYS[(hours // 24 + 3) % 7]
                values[:, column] = 1.0
        return FieldBlock(ids, values)

    def contents(self, contents: Sequence[Fields]) -> FieldBlock:
        """The contents' sides, columns as `spec.content`; made once per content version, for the catalog."""
        ids = np.zeros((len(contents), len(self.spec.content)), np.uint32)
        values = np.zeros(ids.shape, np.float32)
        for row, fields in enumerate(contents):
            self._fill(ids[row], values[row], self.spec.content, fields)
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
        context = _with_crosses(users, {"user": users}, self._shared_crosses)
        sides = {"content": contents}
        if self._own_crosses:
            sides["user"] = users.take(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)))
        return context.sparse(), _with_crosses(contents, sides, self._own_crosses).sparse()

    def _fill(self, ids: NDArray[np.uint32], values: NDArray[np.float32], names: Sequence[str], fields: Fields) -> None:
        for column, name in enumerate(names):
            value = fields.get(name)
            if value is None:
                continue
            if isinstance(value, bool):
                value = "true" if value else "false"
            if isinstance(value, str):
                ids[column], values[column] = _categorical_id(name, value), 1.0
            elif _is_number(value):
                ids[column], values[column] = _numeric_id(name), value
            elif self.strict:
                raise InvalidFeature(
                    f"{value!r} is neither a string nor a finite number within float32", field=name, value=value
                )
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


_Column = tuple[str, int]


def _with_crosses(
    block: FieldBlock, sides: Mapping[str, FieldBlock], crosses: Sequence[tuple[_Column, _Column]]
) -> FieldBlock:
    """The block with a column more for each cross; the cross of a number with anything carries the product."""
    if not crosses:
        return block
    left = [sides[side].ids[:, at] for (side, at), _ in crosses]
    right = [sides[side].ids[:, at] for _, (side, at) in crosses]
    values = [sides[a].values[:, i] * sides[b].values[:, j] for (a, i), (b, j) in crosses]
    ids = hashing.cross(np.stack(left, axis=1), np.stack(right, axis=1))
    return FieldBlock(np.concatenate([block.ids, ids], axis=1), np.column_stack([block.values, *values]))


def _is_number(value: object) -> bool:
    # NaN is within no range; an int of any size compares exactly.
    return isinstance(value, int | float) and -_LARGEST <= value <= _LARGEST
