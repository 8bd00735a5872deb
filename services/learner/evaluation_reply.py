"""A judgement as ``learner.v1`` has it."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from banditmesh.contracts.learner.v1 import learner_pb2 as pb
from banditmesh.ope.evaluation import Estimate
from banditmesh.replay.judgement import SHOWN_ESTIMATORS, Judgement
from banditmesh.runtime.errors import InvalidArgument
from services.learner.evaluations import Question

BEST: Final = "best"
LOGGED: Final = "logged"


def question(request: pb.EvaluatePolicyRequest) -> Question:
    """What was asked. Raises InvalidArgument for a time that is none."""
    return Question(
        request.placement,
        request.variant,
        request.policy,
        request.explore,
        _time(request.start_time, "start_time") if request.HasField("start_time") else None,
        _time(request.end_time, "end_time") if request.HasField("end_time") else None,
    )


def evaluated(found: Judgement) -> pb.EvaluatePolicyResponse:
    """The answer of ``EvaluatePolicy``."""
    answer = pb.EvaluatePolicyResponse(
        policy=found.policy,
        decisions=found.rows,
        effective_sample_size=_known(found.support.effective),
        matched_weight=_known(found.support.mean_weight),
        largest_weight=_known(found.support.largest),
        never_shown=found.never_shown,
        warnings=found.warnings,
    )
    for metric, judged in found.metrics.items():
        answer.estimates.append(_estimate(metric, BEST, judged.best, found.rows))
        for name in SHOWN_ESTIMATORS:
            answer.estimates.append(_estimate(metric, name, judged.estimates[name], found.rows))
        answer.estimates.append(
            pb.Estimate(
                metric=metric,
                estimator=LOGGED,
                value=judged.logged,
                lower=judged.logged,
                upper=judged.logged,
                decisions=found.rows,
                by=LOGGED,
            )
        )
    return answer


def _estimate(metric: str, name: str, estimate: Estimate, rows: int) -> pb.Estimate:
    return pb.Estimate(
        metric=metric,
        estimator=name,
        value=estimate.value,
        lower=estimate.interval.lower,
        upper=estimate.interval.upper,
        decisions=rows,
        by=estimate.name,
    )


def _known(number: float) -> float:
    return number if isfinite(number) else 0.0


def _time(timestamp: Timestamp, field: str) -> datetime:
    try:
        return timestamp.ToDatetime(UTC)
    except ValueError as error:
        said = f"{timestamp.seconds} s {timestamp.nanos} ns"
        raise InvalidArgument("is no time of the years 1 to 9999", field=field, value=said) from error
