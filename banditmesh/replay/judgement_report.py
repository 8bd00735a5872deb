"""A judgement, ready for JSON, for a message of the learner, and for a terminal."""

from __future__ import annotations

import math
from typing import Any

from banditmesh.ope.evaluation import Estimate
from banditmesh.ope.lists import ListEstimate, ListJudgement
from banditmesh.replay.judgement import SHOWN_ESTIMATORS, Gain, Judged, Judgement


def report(found: Judgement) -> dict[str, Any]:
    """The whole judgement; null stands for what too few rows cannot tell."""
    return {
        "policy": found.policy,
        "rows": found.rows,
        "from_s": found.time_s[0],
        "to_s": found.time_s[1],
        "metrics": {name: _metric(each) for name, each in found.metrics.items()},
        "effective_rows": _known(found.support.effective),
        "mean_weight": _known(found.support.mean_weight),
        "largest_weight": _known(found.support.largest),
        "never_shown": _known(found.never_shown),
        "fallback_rows": found.fallback,
        "lists": None if found.lists is None else lists_report(found.lists),
        "warnings": list(found.warnings),
        **({"difference": gain_report(found.gain)} if found.gain else {}),
        **({"without": {rule: report(each) for rule, each in found.without.items()}} if found.without else {}),
    }


def gain_report(found: Gain) -> dict[str, Any]:
    """What a policy would earn more without a rule."""
    return {
        "moved": _known(found.moved),
        "told": _known(found.told),
        "metrics": {metric: _estimate(each) for metric, each in found.estimates.items()},
    }


def lists_report(found: ListJudgement) -> dict[str, Any]:
    """Ranked lists as a whole: each metric is a sum over a list."""
    return {
        "lists": found.lists,
        "mean_length": found.mean_length,
        "left_out": found.left_out,
        "metrics": {
            metric: {
                "logged": found.logged[metric],
                **{assumption: _list_estimate(each) for assumption, each in estimates.items()},
            }
            for metric, estimates in found.estimates.items()
        },
        **(
            {}
            if found.differences is None
            else {
                "difference": {
                    metric: {
                        assumption: {
                            "value": _known(each.value),
                            "lower": _known(each.interval.lower),
                            "upper": _known(each.interval.upper),
                        }
                        for assumption, each in differences.items()
                    }
                    for metric, differences in found.differences.items()
                }
            }
        ),
    }


def _list_estimate(estimate: ListEstimate) -> dict[str, Any]:
    return {
        "value": _known(estimate.value),
        "lower": _known(estimate.interval.lower),
        "upper": _known(estimate.interval.upper),
        "effective": _known(estimate.effective),
        "mean_weight": _known(estimate.mean_weight),
        **({"caveat": estimate.caveat} if estimate.caveat else {}),
    }


def _metric(judged: Judged) -> dict[str, Any]:
    estimates = {name: _estimate(judged.estimates[name]) for name in SHOWN_ESTIMATORS}
    return {"logged": _known(judged.logged), "best": _estimate(judged.best), **estimates}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "estimator": estimate.name,
        "value": _known(estimate.value),
        "lower": _known(estimate.interval.lower),
        "upper": _known(estimate.interval.upper),
    }


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
