"""An era: a time in which one experiment ran unchanged, and its sums.

What is compared must have been served beside each other in the same proportion all the time: pooled over a change of
weights, a variant that was large on good days looks better than it is (Simpson's paradox; Crook, Frasca, Kohavi,
Longbotham 2009, "Seven pitfalls"). So a change of salt, variants or weights begins another era.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import mix64
from banditmesh.experiments.people import People

COUNTS: Final = ("impressions", "reward", "reward_squared", "click", "mute", "target", "dwell")
"""What is summed, in this order; behind them one for each named target action, ``target:<name>``."""
BUCKETS: Final = 1024
DAYS: Final = 92
"""Of the series by day; older ones are let go of, the sums keep them."""
BEFORE, DURING = 0, 1
DAY_MS: Final = 86_400_000
_BUCKET_SALT: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Plan:
    """What an era is an era of; another one is another era.

    Attributes:
        salt: of the assignment.
        weights: by variant, as in force: a stopped one has 0. Holdout and the like are variants here.
        control: whom the others are compared with.
        targets: names of target actions that are counted one by one.
        compared: who is compared with the control.
        starts_ms: before it everybody is served by the control's policy: the pre-period; 0: there is none.
        aa: whether all variants are served by the control's policy all the time.
    """

    salt: str
    weights: dict[str, float]
    control: str
    targets: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    starts_ms: int = 0
    aa: bool = False

    @property
    def counts(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (*COUNTS, *(f"target:{name}" for name in self.targets))

    @property
    def shares(self) -> dict[str, float]:
        """Of the users, by variant."""
        total = sum(self.weights.values())
        return {name: weight / total if total else 0.0 for name, weight in self.weights.items()}


@dataclass(frozen=True, eq=False)
class Shown:
    """n closed impressions, column by column, in the order in which they are learned.

    Attributes:
        users: uint64[n], hashed.
        variants: n names.
        decided_ms, shown_ms: int64[n].
        rewards: float64[n].
        clicked, muted, reached, dwelt: bool[n]; ``reached`` a target action.
        targets: n names of target actions, empty where there was none.
    """

    users: NDArray[np.uint64]
    variants: list[str]
    decided_ms: NDArray[np.int64]
    shown_ms: NDArray[np.int64]
    rewards: NDArray[np.float64]
    clicked: NDArray[np.bool_]
    muted: NDArray[np.bool_]
    reached: NDArray[np.bool_]
    dwelt: NDArray[np.bool_]
    targets: list[str]

    def __len__(self) -> int:
        return len(self.variants)


@dataclass(eq=False)
class Era:
    """The sums.

    Attributes:
        began_ms: decisions from then on belong to it.
        ended_ms: decisions from then on do not; None: it has not ended.
        sums: float64[2, n_variants, n_buckets, n_counts]: before ``plan.starts_ms``, and from then on.
        days: (number of the day since 1970, UTC; BEFORE or DURING) → float64[n_variants, n_counts].
        people: who was seen from ``plan.starts_ms`` on.
    """

    plan: Plan
    began_ms: int
    sums: NDArray[np.float64]
    days: dict[tuple[int, int], NDArray[np.float64]] = field(default_factory=dict)
    people: People = field(default_factory=People)
    ended_ms: int | None = None

    @classmethod
    def empty(cls, plan: Plan, began_ms: int, buckets: int = BUCKETS) -> Era:
        """Nobody was seen yet."""
        return cls(plan, began_ms, np.zeros((2, len(plan.weights), buckets, len(plan.counts))))

    @property
    def names(self) -> tuple[str, ...]:
        """The variants, in the order of the sums."""
        return tuple(self.plan.weights)

    def add(self, shown: Shown, rows: NDArray[np.intp]) -> int:
        """Takes in these rows; returns how many were of no variant that the era has."""
        names = {name: at for at, name in enumerate(self.names)}
        variants = np.array([names.get(shown.variants[row], -1) for row in rows.tolist()], np.int64)
        there = variants >= 0
        unknown = int((~there).sum())
        rows, variants = rows[there], variants[there]
        if not len(rows):
            return unknown
        columns = self._columns(shown, rows)
        users = shown.users[rows]
        buckets = (mix64(users ^ _BUCKET_SALT) % np.uint64(self.sums.shape[2])).astype(np.int64)
        during = (shown.decided_ms[rows] >= self.plan.starts_ms).astype(np.int64)
        np.add.at(self.sums, (during, variants, buckets), columns)
        self.people.add(users[during == DURING], variants[during == DURING])
        days = np.column_stack([shown.shown_ms[rows] // DAY_MS, during])
        for day in np.unique(days, axis=0):
            there = (days == day).all(axis=1)
            of_day = self.days.setdefault(tuple(day.tolist()), np.zeros((len(names), columns.shape[1])))
            np.add.at(of_day, variants[there], columns[there])
        for day in sorted(self.days)[:-DAYS]:
            del self.days[day]
        return unknown

    def _columns(self, shown: Shown, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """float64[n_rows, n_counts]."""
        rewards = shown.rewards[rows]
        named = np.array([shown.targets[row] for row in rows.tolist()])
        return np.column_stack(
            [
                np.ones(len(rows)),
                rewards,
                rewards**2,
                *(each[rows] for each in (shown.clicked, shown.muted, shown.reached, shown.dwelt)),
                *(named == name for name in self.plan.targets),
            ]
        ).astype(np.float64)

    def tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """A copy of the sums, by name."""
        order = sorted(self.days)
        shape = (len(order), *self.sums.shape[1:2], self.sums.shape[3])
        return {
            f"{prefix}.sums": self.sums.copy(),
            f"{prefix}.days": np.array([day for day, _ in order], np.int64),
            f"{prefix}.day_periods": np.array([period for _, period in order], np.int64),
            f"{prefix}.day_sums": np.array([self.days[day] for day in order], np.float64).reshape(shape),
            f"{prefix}.people": self.people.hashes.copy(),
            f"{prefix}.people_variants": self.people.variants.astype(np.int64),
        }
