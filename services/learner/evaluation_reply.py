"""A judgement as ``learner.v1`` has it."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from banditmesh.contracts.learner.v1 import learner_pb2 as pb
from banditmesh.ope.evaluation import Estimate
from banditmesh.ope.interval import Interval
from banditmesh.ope.lists import ListJudgement
from banditmesh.replay.judgement import SHOWN_ESTIMATORS, Judgement
from banditmesh.runtime.errors import InvalidArgument
from services.learner.evaluations import Question

BEST: Final = "best"
LOGGED: Final = "logged"
DIFFERENCE: Final = "difference"


def question(request: pb.EvaluatePolicyRequest) -> Question:
    """What was asked. Raises InvalidArgument for a time that is none."""
    return Question(
        request.placement,
        request.variant,
        request.policy,
        request.explore,
        _time(request.start_time, "start_time") if request.HasField("start_time") else None,
        _time(request.end_time, "end_time") if request.HasField("end_time") else None,
        tuple(request.without_rules),
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
        lists=None if found.lists is None else _lists(found.lists),
        without=[_without(rule, each) for rule, each in found.without.items()],
        fallback_decisions=found.fallback,
    )
    for metric, judged in found.metrics.items():
        answer.estimates.append(_estimate(metric, BEST, judged.best, found.rows))
        for name in SHOWN_ESTIMATORS:
            answer.estimates.append(_estimate(metric, name, judged.estimates[name], found.rows))
        answer.estimates.append(_logged(metric, judged.logged, found.rows))
    return answer


def _without(rule: str, found: Judgement) -> pb.EvaluatedWithout:
    answer = pb.EvaluatedWithout(rule=rule, result=evaluated(found))
    if found.gain is not None:
        for metric, each in found.gain.estimates.items():
            answer.differences.append(_estimate(metric, DIFFERENCE, each, found.rows))
        answer.moved, answer.told = _known(found.gain.moved), _known(found.gain.told)
    if found.lists is not None and found.lists.differences is not None:
        for metric, differences in found.lists.differences.items():
            for assumption, gain in differences.items():
                said = _number(metric, assumption, gain.value, gain.interval, found.lists.lists, assumption)
                answer.list_differences.append(said)
    return answer


def _lists(found: ListJudgement) -> pb.EvaluatedLists:
    answer = pb.EvaluatedLists(lists=found.lists, mean_length=found.mean_length, left_out=found.left_out)
    for metric, estimates in found.estimates.items():
        for assumption, each in estimates.items():
            said = _number(metric, assumption, each.value, each.interval, found.lists, assumption)
            said.caveat = each.caveat
            answer.estimates.append(said)
        answer.estimates.append(_logged(metric, found.logged[metric], found.lists))
    return answer


def _logged(metric: str, value: float, rows: int) -> pb.Estimate:
    return _number(metric, LOGGED, value, Interval(value, value), rows, LOGGED)


def _estimate(metric: str, name: str, estimate: Estimate, rows: int) -> pb.Estimate:
    return _number(metric, name, estimate.value, estimate.interval, rows, estimate.name)


def _number(metric: str, name: str, value: float, interval: Interval, rows: int, by: str) -> pb.Estimate:
    lower, upper = interval
    return pb.Estimate(metric=metric, estimator=name, value=value, lower=lower, upper=upper, decisions=rows, by=by)


def _known(number: float) -> float:
    return number if isfinite(number) else 0.0


def _time(timestamp: Timestamp, field: str) -> datetime:
    try:
        return timestamp.ToDatetime(UTC)
    except ValueError as error:
        said = f"{timestamp.seconds} s {timestamp.nanos} ns"
        raise InvalidArgument("is no time of the years 1 to 9999", field=field, value=said) from error
