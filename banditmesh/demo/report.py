"""Did it learn, and was every impression counted once? The numbers behind the demo's verdict."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.output import output

if TYPE_CHECKING:
    from collections.abc import Mapping

LEARNED, RANDOM = "learned", "random"
CONFIDENCE = 0.95
_ROLLING = 500


@dataclass(frozen=True)
class Outcome:
    """One example, as far as the report needs it."""

    variant: str
    user: str
    clicked: bool
    reward: float


@dataclass
class Examples:
    """All examples that came out, in the order in which they came.

    Attributes:
        copies: How many examples there are of each impression.
        outcomes: One for each example.
        model_versions: The newest model version that a variant's decision was made with.
    """

    copies: Counter[bytes] = field(default_factory=Counter)
    outcomes: list[Outcome] = field(default_factory=list)
    model_versions: dict[str, int] = field(default_factory=dict)

    def add(self, joined: events_pb2.JoinedImpression) -> None:
        """Take in one example."""
        decision = joined.decision
        self.copies[decision.impression_id] += 1
        clicked = joined.outcome == events_pb2.OUTCOME_CLICK
        self.outcomes.append(Outcome(decision.variant, decision.user_id, clicked, joined.reward))
        newest = max(self.model_versions.get(decision.variant, 0), decision.model_version)
        self.model_versions[decision.variant] = newest


@dataclass(frozen=True)
class Delivery:
    """What became of the acknowledged impressions."""

    acknowledged: int
    once: int
    missing: int
    duplicated: int
    unexpected: int

    @property
    def exact(self) -> bool:
        """Every acknowledged impression came out as exactly one example, and nothing else did."""
        return self.once == self.acknowledged and not (self.missing or self.duplicated or self.unexpected)


def delivery(acknowledged: Mapping[bytes, str], copies: Mapping[bytes, int]) -> Delivery:
    """Compare what was acknowledged with what came out."""
    found = [copies.get(impression, 0) for impression in acknowledged]
    return Delivery(
        len(found),
        sum(count == 1 for count in found),
        sum(count == 0 for count in found),
        sum(count > 1 for count in found),
        sum(impression not in acknowledged for impression in copies),
    )


@dataclass(frozen=True)
class VariantResult:
    """What a variant earned."""

    impressions: int
    users: int
    click_rate: float
    mean_reward: float


@dataclass(frozen=True)
class Difference:
    """Learned minus random, with a 95 % interval."""

    value: float
    lower: float
    upper: float

    @property
    def better(self) -> bool:
        """The whole interval lies above 0."""
        return self.lower > 0


def variant_result(outcomes: list[Outcome], variant: str) -> VariantResult:
    """Sum up one variant."""
    mine = [outcome for outcome in outcomes if outcome.variant == variant]
    if not mine:
        return VariantResult(0, 0, 0.0, 0.0)
    return VariantResult(
        len(mine),
        len({outcome.user for outcome in mine}),
        sum(outcome.clicked for outcome in mine) / len(mine),
        sum(outcome.reward for outcome in mine) / len(mine),
    )


def difference(outcomes: list[Outcome], measure: str, variants: tuple[str, str] = (LEARNED, RANDOM)) -> Difference:
    """Return the difference of the two variants' means with its interval.

    People are what was assigned to the variants, and one person's impressions are alike, so a mean over impressions is
    a ratio of two
    sums over people; its variance is by the delta method (Deng, Knoblich, Lu 2018, "Applying the Delta Method in
    Metric Analytics", Eq. 3).

    Args:
        outcomes: All examples.
        measure: ``clicked`` or ``reward``.
        variants: The one that should be better, and the other.
    """
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    (mean_a, var_a), (mean_b, var_b) = (_ratio(outcomes, variant, measure) for variant in variants)
    half = z * float(np.sqrt(var_a + var_b))
    return Difference(mean_a - mean_b, mean_a - mean_b - half, mean_a - mean_b + half)


def _ratio(outcomes: list[Outcome], variant: str, measure: str) -> tuple[float, float]:
    """Return a variant's mean over impressions and the variance of that mean; infinite with fewer than two people."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for outcome in outcomes:
        if outcome.variant == variant:
            sums[outcome.user][0] += float(getattr(outcome, measure))
            sums[outcome.user][1] += 1.0
    if len(sums) < 2:
        return 0.0, float("inf")
    totals: NDArray[np.float64] = np.array(list(sums.values()))
    ratio = totals[:, 0].sum() / totals[:, 1].sum()
    residual = totals[:, 0] - ratio * totals[:, 1]
    variance = residual.var(ddof=1) / (len(totals) * totals[:, 1].mean() ** 2)
    return float(ratio), float(variance)


def plot(outcomes: list[Outcome], path: Path) -> None:
    """Draw the click rate of both variants as visits go by, over the last 500 impressions of each, and the mean so
    far."""
    import matplotlib as mpl  # heavy, and only needed at the very end

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for variant, colour in ((LEARNED, "tab:blue"), (RANDOM, "tab:grey")):
        at = np.array([index for index, outcome in enumerate(outcomes) if outcome.variant == variant])
        clicks = np.array([outcome.clicked for outcome in outcomes if outcome.variant == variant], float)
        if len(clicks) == 0:
            continue
        total = np.concatenate([[0.0], np.cumsum(clicks)])
        start = np.maximum(np.arange(len(clicks)) + 1 - _ROLLING, 0)
        rolling = (total[1:] - total[start]) / (np.arange(len(clicks)) + 1 - start)
        axes.plot(at, rolling, color=colour, label=f"{variant}, last {_ROLLING} impressions")
        axes.plot(
            at, total[1:] / np.arange(1, len(clicks) + 1), color=colour, linestyle=":", label=f"{variant}, so far"
        )
    axes.set(xlabel="impressions (of both variants)", ylabel="click rate", ylim=(0, None))
    axes.set_title("What people click on: the learned policy against random choice")
    axes.grid(alpha=0.3)
    axes.legend()
    with output(path, "plot") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
