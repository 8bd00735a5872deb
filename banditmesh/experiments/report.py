"""What an era says: rates of each variant, differences to the control, and whether to believe them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.experiments.era import BEFORE, DURING, Era
from banditmesh.experiments.rates import BeforeSums, Rates, adjusted, rates
from banditmesh.experiments.sample_ratio import SampleRatio, sample_ratio
from banditmesh.experiments.sequence import FEWEST_BUCKETS, FEWEST_EVENTS, PLANNED, multiplier

NO_CONTENT: Final = "no_content_rate"
METRICS: Final = {
    "reward": "reward",
    "click_rate": "click",
    "mute_rate": "mute",
    "target_rate": "target",
    "dwell_rate": "dwell",
}
"""Name of each metric → the count that an impression has of it on average."""
MORE_IS_WORSE: Final = frozenset({"mute_rate", NO_CONTENT})
ALPHA: Final = 0.05


class Selections(NamedTuple):
    """What engines have counted, float64[n_variants, n_buckets] each: selections, and those that nothing came of."""

    all: NDArray[np.float64]
    empty: NDArray[np.float64]


class Range(NamedTuple):
    """An interval; from -inf to inf as long as too little is known."""

    lower: float
    upper: float

    @property
    def known(self) -> bool:
        """Whether it says anything."""
        return isfinite(self.lower) or isfinite(self.upper)


UNKNOWN: Final = Range(-inf, inf)


@dataclass(frozen=True)
class Figure:
    """One metric of one variant.

    Attributes:
        metric: its name.
        value: the variant's own rate, as it was.
        range: confidence sequence of the rate.
        difference: to the control, freed from what was known of the users before (CUPED) where there is a pre-period.
        difference_range: its confidence sequence.
        lift: difference as a share of the control's rate; NaN where that is not known to differ from 0.
        lift_range: by Fieller 1954, so that it excludes 0 just when ``difference_range`` does.
        removed: the share of the difference's variance that the pre-period has explained.
    """

    metric: str
    value: float
    range: Range
    difference: float = nan
    difference_range: Range = UNKNOWN
    lift: float = nan
    lift_range: Range = UNKNOWN
    removed: float = 0.0

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``open``."""
        low, high = self.difference_range
        if low <= 0 <= high or not self.difference_range.known:
            return "open"
        return "worse" if (low > 0) == (self.metric in MORE_IS_WORSE) else "better"


@dataclass(frozen=True)
class VariantFigures:
    """A variant. ``counts``: sums by name, of the time that counts; ``before``: impressions of the pre-period;
    ``figures``: by metric."""

    name: str
    share: float
    users: int
    counts: dict[str, float]
    before: int
    figures: dict[str, Figure]


class Day(NamedTuple):
    """A variant on a day. ``day``: number since 1970, UTC; ``before``: what was decided before the start."""

    day: int
    variant: str
    counts: dict[str, float]
    before: bool


@dataclass(frozen=True)
class Report:
    """An era.

    Attributes:
        confidence: of each confidence sequence; with several compared variants it is larger, so that with 95 % all
            intervals of one metric hold together, at all times.
    """

    control: str
    began_ms: int
    confidence: float
    variants: tuple[VariantFigures, ...]
    sample_ratio: SampleRatio
    days: tuple[Day, ...]


def report(era: Era, selections: Selections | None = None, *, planned: float = PLANNED, alpha: float = ALPHA) -> Report:
    """The report of an era.

    Args:
        selections: by the engines' count, variants in the order of the era; None: not known.
        planned: see `sequence.multiplier`.
        alpha: how often at most, over all compared variants, some interval of a metric ever misses the truth.
    """
    plan = era.plan
    names = era.names
    each_alpha = alpha / max(1, len(plan.compared))
    columns: dict[str, _Column] = {}
    during, before = era.sums[DURING], era.sums[BEFORE]
    at = {name: number for number, name in enumerate(plan.counts)}
    shown, shown_before = during[:, :, 0], before[:, :, 0]
    for metric, count in {**METRICS, **{f"{name}_rate": name for name in at if name.startswith("target:")}}.items():
        column = at[count]
        squares = during[:, :, at["reward_squared"]] if count == "reward" else during[:, :, column]
        columns[metric] = _Column(
            during[:, :, column], shown, squares, BeforeSums(before[:, :, column], shown_before), count != "reward"
        )
    if selections is not None:
        columns[NO_CONTENT] = _Column(selections.empty, selections.all, selections.empty, None, True)
    figures = {
        metric: _figures(metric, column, names, plan.control, plan.compared, each_alpha, planned)
        for metric, column in columns.items()
    }
    users = era.people.users(len(names)).tolist()
    totals = during.sum(axis=1)
    shares = plan.shares
    return Report(
        plan.control,
        era.began_ms,
        1 - each_alpha,
        tuple(
            VariantFigures(
                name,
                shares[name],
                users[number],
                dict(zip(plan.counts, totals[number].tolist(), strict=True)),
                int(shown_before[number].sum()),
                {metric: of_metric[name] for metric, of_metric in figures.items()},
            )
            for number, name in enumerate(names)
        ),
        sample_ratio(
            era.people.counted(len(names)).tolist(), [shares[name] for name in names], halvings=era.people.halvings
        ),
        tuple(
            Day(day, name, dict(zip(plan.counts, sums[number].tolist(), strict=True)), period == BEFORE)
            for (day, period), sums in sorted(era.days.items())
            for number, name in enumerate(names)
        ),
    )


class _Column(NamedTuple):
    """Sums of one metric, float64[n_variants, n_buckets] each. ``events``: whether an impression has 0 or 1 of it."""

    numerators: NDArray[np.float64]
    denominators: NDArray[np.float64]
    squares: NDArray[np.float64]
    before: BeforeSums | None
    events: bool


def _figures(
    metric: str,
    column: _Column,
    names: tuple[str, ...],
    control: str,
    compared: tuple[str, ...],
    alpha: float,
    planned: float,
) -> dict[str, Figure]:
    plain = rates(column.numerators, column.denominators)
    known = plain if column.before is None else adjusted(column.numerators, column.denominators, column.before)
    found: dict[str, Figure] = {}
    base = names.index(control)
    for number, name in enumerate(names):
        alone = _own(plain, column, number, alpha, planned)
        if name not in compared:
            found[name] = Figure(metric, float(plain.values[number]), alone)
            continue
        pair = [number, base]
        variance = float(known.variances[pair].sum())
        factor = _factor(column, pair, variance, alpha, planned)
        difference = float(known.values[number] - known.values[base])
        half = factor * sqrt(variance) if isfinite(factor) else inf
        untouched = float(plain.variances[pair].sum())
        found[name] = Figure(
            metric,
            float(plain.values[number]),
            alone,
            difference,
            Range(difference - half, difference + half),
            *_lift(known, number, base, factor),
            removed=1 - variance / untouched if untouched > 0 else 0.0,
        )
    return found


def _own(plain: Rates, column: _Column, number: int, alpha: float, planned: float) -> Range:
    """Of a rate by itself."""
    variance = float(plain.variances[number])
    # 4 scale / n is the variance of a difference; scale / n that of one rate of n impressions.
    factor = _factor(column, [number], variance, alpha, planned)
    half = factor * sqrt(variance) if isfinite(factor) else inf
    value = float(plain.values[number])
    if not isfinite(half):
        return UNKNOWN
    low, high = value - half, value + half
    return Range(max(low, 0.0), min(high, 1.0)) if column.events else Range(low, high)


def _factor(column: _Column, pair: list[int], variance: float, alpha: float, planned: float) -> float:
    """See `sequence.multiplier`; inf as long as too few people, or too few events, were seen."""
    there = column.denominators[pair] > 0
    happened = int((column.numerators[pair] != 0).sum())
    not_all = int((column.numerators[pair] != column.denominators[pair]).sum())
    if there.sum(axis=-1).min() < FEWEST_BUCKETS or (column.events and min(happened, not_all) < FEWEST_EVENTS):
        return inf
    shown = float(column.denominators[pair].sum())
    mean = float(column.numerators[pair].sum()) / shown
    scale = float(column.squares[pair].sum()) / shown - mean**2
    return float(multiplier(np.array(variance), np.array(scale), alpha=alpha, planned=planned))


def _lift(known: Rates, number: int, base: int, factor: float) -> tuple[float, Range]:
    """Relative difference: all r with (v - r c)² <= factor² (Var v + r² Var c), less 1 (Fieller 1954)."""
    v, c = float(known.values[number]), float(known.values[base])
    if not isfinite(factor) or not c:
        return (v / c - 1 if c else nan), UNKNOWN
    spread_v, spread_c = (factor**2 * float(known.variances[at]) for at in (number, base))
    a = c * c - spread_c
    if a <= 0:  # the control's rate may be 0, and then any ratio is possible
        return v / c - 1, UNKNOWN
    root = sqrt(max(0.0, (v * c) ** 2 - a * (v * v - spread_v)))
    low, high = sorted(((v * c - root) / a, (v * c + root) / a))
    return v / c - 1, Range(low - 1, high - 1)
