"""What a replay has found, policy by policy: one estimate over all seeds, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, variance
from typing import Any

from banditmesh.ope.estimator import Estimator
from banditmesh.replay.offpolicy import OffPolicy
from banditmesh.replay.run import Run

CONFIDENCE = 0.95


def report(runs: Sequence[Run]) -> dict[str, Any]:
    """The outcome of one policy, ready for JSON; null stands for what too few rows cannot tell.

    `reward` is the mean over the seeds. All seeds read the same log, so its variance is not divided by their number:
    `interval` has variance (mean over seeds of the variance of one run) + (variance between seeds) / seeds.
    """
    means = [run.tally.mean for run in runs]
    spread = fmean(run.tally.variance for run in runs)
    if len(runs) > 1:
        spread += variance(means) / len(runs)
    mean, half = fmean(means), NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * math.sqrt(spread)
    found: dict[str, Any] = {
        "policy": runs[0].spec.text,
        "exploration": runs[0].spec.explore,
        "rows": runs[0].tally.rows,
        "matches": fmean(run.tally.matches for run in runs),
        "reward": _known(mean),
        "interval": [_known(mean - half), _known(mean + half)],
        "confidence": CONFIDENCE,
        "unusable_scores": sum(run.tally.unusable for run in runs),
        "seeds": [
            {"seed": run.seed, "rows": run.tally.rows, "matches": run.tally.matches, "reward": _known(run.tally.mean)}
            for run in runs
        ],
        "curve": [[point.decisions, point.so_far] for point in runs[0].tally.curve()],
    }
    first = runs[0]
    if isinstance(first, OffPolicy):
        found["estimators"] = {estimator.name: _estimate(estimator) for estimator in first.estimators}
        found["mean_weight"] = _known(first.weight / first.tally.rows) if first.tally.rows else None
    return found


def _estimate(estimator: Estimator) -> dict[str, Any]:
    return {
        "value": _known(estimator.value),
        "normal": [_known(bound) for bound in estimator.normal(CONFIDENCE)],
        "bootstrap": [_known(bound) for bound in estimator.bootstrap(CONFIDENCE)],
    }


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
