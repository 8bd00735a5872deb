"""What a replay has found, policy by policy: one estimate over all seeds, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, variance
from typing import Any

from banditmesh.ope.evaluation import Estimate
from banditmesh.ope.interval import Interval
from banditmesh.replay.judgement_report import lists_report
from banditmesh.replay.offpolicy import OffPolicy
from banditmesh.replay.run import Run

CONFIDENCE = 0.95


def report(runs: Sequence[Run]) -> dict[str, Any]:
    """The outcome of one policy, ready for JSON; null stands for what too few rows cannot tell.

    `reward` is the mean over the seeds. All seeds read the same log, so what the log leaves open is not divided by
    their number: see `_over_seeds`.
    """
    first = runs[0]
    answers = [_answer(run) for run in runs]
    reward, interval = _over_seeds(answers)
    found: dict[str, Any] = {
        "policy": first.spec.text,
        "exploration": first.spec.explore,
        "rows": first.tally.rows,
        "matches": fmean(run.tally.matches for run in runs),
        "reward": _known(reward),
        "interval": _bounds(interval),
        "confidence": CONFIDENCE,
        "unusable_scores": sum(run.tally.unusable for run in runs),
        "seeds": [
            {"seed": run.seed, "rows": run.tally.rows, "matches": run.tally.matches, "reward": _known(answer.value)}
            for run, answer in zip(runs, answers, strict=True)
        ],
        "curve": [[point.decisions, point.so_far] for point in first.tally.curve()],
    }
    if isinstance(first, OffPolicy):
        found["estimator"] = answers[0].name
        found["estimators"] = {name: _estimate(each) for name, each in first.evaluation.estimates.items()}
        found["mean_weight"] = _known(first.evaluation.support.mean_weight)
        found["support"] = _support(first)
        found["fallback_rows"] = first.fallback
        found["lists"] = None if first.lists is None else lists_report(first.lists)
        found["warnings"] = first.warnings
    return found


def _answer(run: Run) -> Estimate:
    if isinstance(run, OffPolicy):
        return run.answer
    mean, half = run.tally.mean, NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * math.sqrt(run.tally.variance)
    interval = Interval(mean - half, mean + half)
    return Estimate("mean", mean, interval, interval)


def _over_seeds(answers: Sequence[Estimate]) -> tuple[float, Interval]:
    """The mean of the values, and an interval around it.

    On each side it reaches as far as the root of (mean reach of one run)² + (z² times the variance between the
    seeds / seeds): the reach of a run is the log's part, the variance between them that of the draws.
    """
    values = [each.value for each in answers]
    mean = fmean(values)
    if len(answers) == 1:
        return mean, answers[0].interval
    drawn = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) ** 2 * variance(values) / len(values)
    lower = fmean(each.interval.lower for each in answers)
    upper = fmean(each.interval.upper for each in answers)
    below, above = max(mean - lower, 0.0), max(upper - mean, 0.0)
    return mean, Interval(lower + below - math.hypot(below, drawn**0.5), upper - above + math.hypot(above, drawn**0.5))


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": _known(estimate.value),
        "interval": _bounds(estimate.interval),
        "normal": _bounds(estimate.normal),
    }


def _support(run: OffPolicy) -> dict[str, Any]:
    support = run.evaluation.support
    return {
        "rows": support.n,
        "effective_rows": support.effective,
        "mean_weight": _known(support.mean_weight),
        "largest_weight": support.largest,
        "largest_weight_line": support.largest_key,
        "never_shown": run.evaluation.unseen.share,
    }


def _bounds(interval: Interval) -> list[float | None]:
    return [_known(interval.lower), _known(interval.upper)]


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
