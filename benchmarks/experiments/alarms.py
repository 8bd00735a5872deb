"""How often one is misled who looks at an experiment in which nothing differs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from banditmesh.experiments.era import Plan, Shown
from banditmesh.experiments.rates import BeforeSums, adjusted, rates
from banditmesh.experiments.report import report
from banditmesh.experiments.sample_ratio import sample_ratio
from banditmesh.experiments.sequence import FEWEST_EVENTS
from banditmesh.experiments.tally import Tally
from benchmarks.experiments.worlds import differences, excludes_zero, peeked

ALPHA: Final = 0.05
WORLDS: Final[dict[str, dict[str, float]]] = {
    "a tenth clicks": {"rate": 0.1},
    "people differ much and come again": {"rate": 0.3, "spread": 1.0, "users": 1.0},
    "one in a hundred clicks": {"rate": 0.01, "users": 10.0, "spread": 100.0},
    "amounts with a heavy tail (lognormal, sigma 1.5)": {"rate": 0.2, "amounts": 1.5, "users": 5.0},
}


@dataclass(frozen=True)
class Alarms:
    """Shares of the experiments that ever claimed a difference. ``once``: a fixed test, asked at the end alone."""

    sequence: float
    peeked: float
    once: float


def alarms(experiments: int, looks: int, world: dict[str, float]) -> Alarms:
    """A/A tests that are looked at all the time."""
    sequence, fixed = np.zeros(experiments, np.bool_), np.zeros(experiments, np.bool_)
    now = fixed
    z = NormalDist().inv_cdf(1 - ALPHA / 2)
    for sums in peeked(np.random.default_rng(1), experiments, looks, **world):  # type: ignore[arg-type]
        enough = (sums.earned > 0).sum(axis=(1, 2)) >= FEWEST_EVENTS
        sequence |= excludes_zero(sums) & enough
        difference, variance = differences(sums)
        now = (np.abs(difference) > z * np.sqrt(variance)) & enough
        fixed |= now
    return Alarms(sequence.mean(), fixed.mean(), now.mean())


@dataclass(frozen=True)
class Cuped:
    """``left``: share of the variance that is left; ``bias``: of the difference, in its standard errors."""

    left: float
    bias: float


def cuped(experiments: int) -> Cuped:
    """A pre-period as long as the experiment, of people who differ."""
    rng = np.random.default_rng(2)
    off, variances, plain = [], [], []
    for _ in range(experiments):
        own = rng.beta(1.0, 4.0, (2, 500))
        before, shown = (rng.poisson(10, own.shape).astype(float) for _ in range(2))
        earned_before, earned = (rng.binomial(each.astype(int), own).astype(float) for each in (before, shown))
        found = adjusted(earned, shown, BeforeSums(earned_before, before))
        off.append(found.values[1] - found.values[0])
        variances.append(found.variances.sum())
        plain.append(rates(earned, shown).variances.sum())
    return Cuped(float(np.mean(variances) / np.mean(plain)), float(np.mean(off) / np.std(off) * experiments**0.5))


@dataclass(frozen=True)
class Ratios:
    """Of the sample-ratio test. ``users``: that a loss of 2 % of one variant's users takes to be found, the median."""

    false: float
    users: float


def ratios(experiments: int) -> Ratios:
    """At every look of 100, at 5 %."""
    rng = np.random.default_rng(3)
    alike = rng.multinomial(500, [0.3, 0.7], (experiments, 100)).cumsum(axis=1)
    false = [any(sample_ratio(at, (0.3, 0.7)).p < ALPHA for at in each.tolist()) for each in alike]
    lost = rng.multinomial(2000, [0.49 / 0.99, 0.5 / 0.99], (100, 200)).cumsum(axis=1)
    found = []
    for each in lost.tolist():
        first = next((at for at, counts in enumerate(each) if sample_ratio(counts, (0.5, 0.5)).mismatch), len(each))
        found.append(2000 * (first + 1))
    return Ratios(float(np.mean(false)), float(np.median(found)))


def end_to_end(experiments: int) -> float:
    """The same through the tally and the report, people hashed into its buckets: false alarms of the click rate."""
    rng = np.random.default_rng(4)
    wrong = 0
    for number in range(experiments):
        tally = Tally()
        tally.plan(Plan("s", {"a": 1.0, "b": 1.0}, "a", compared=("b",)), 0)
        own = rng.beta(1.0, 9.0, 2000)
        ever = False
        for _ in range(20):
            who = rng.integers(0, len(own), 1000)
            clicked = rng.random(1000) < own[who]
            never, when = np.zeros(1000, np.bool_), np.ones(1000, np.int64)
            variants = ["b" if each % 2 else "a" for each in who.tolist()]
            users = (who + number * len(own)).astype(np.uint64)
            tally.learn(Shown(users, variants, when, when, clicked + 0.0, clicked, never, never, never, [""] * 1000))
            figure = report(tally.eras[-1]).variants[1].figures["click_rate"]
            ever |= figure.verdict != "open"
        wrong += ever
    return wrong / experiments
