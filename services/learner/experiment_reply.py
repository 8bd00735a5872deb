"""A report of an experiment as ``learner.v1`` has it."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite

from google.protobuf.timestamp_pb2 import Timestamp

from banditmesh.contracts.learner.v1 import learner_pb2 as pb
from banditmesh.experiments.era import DAY_MS
from banditmesh.experiments.report import Day, Figure, VariantFigures
from banditmesh.runtime.stops import Entry
from services.learner.experiments import Found


def reply(found: Found) -> pb.GetExperimentReportResponse:
    """The answer of ``GetExperimentReport``."""
    report, plan = found.report, found.era.plan
    answer = pb.GetExperimentReportResponse(
        variants=[variant(each, found) for each in report.variants],
        control=report.control,
        eras=found.eras,
        confidence=report.confidence,
        sample_ratio=pb.SampleRatio(p_value=report.sample_ratio.p, mismatch=report.sample_ratio.mismatch),
        days=[day(each) for each in report.days if each.counts["impressions"]],
        changes=[change(each) for each in found.stopped.history],
        aa=plan.aa,
        unknown_impressions=found.unknown,
        unsettled_impressions=found.unsettled,
    )
    for field, time_ms in (
        ("start_time", report.began_ms),
        ("watermark", found.watermark_ms),
        ("pre_period_end", plan.starts_ms),
    ):
        if time_ms:
            getattr(answer, field).CopyFrom(timestamp(time_ms))
    return answer


def variant(of: VariantFigures, found: Found) -> pb.VariantReport:
    """One variant."""
    counts = of.counts
    answer = pb.VariantReport(
        variant=of.name,
        impressions=int(counts["impressions"]),
        clicks=int(counts["click"]),
        mutes=int(counts["mute"]),
        target_impressions=int(counts["target"]),
        mean_reward=counts["reward"] / counts["impressions"] if counts["impressions"] else 0.0,
        users=of.users,
        share=of.share,
        pre_period_impressions=of.before,
        metrics=[metric(each) for each in of.figures.values()],
    )
    if (stop := found.stopped.stopped.get(of.name)) is not None:
        answer.stopped.CopyFrom(change(stop))
    return answer


def metric(figure: Figure) -> pb.VariantMetric:
    """One metric; what is not known stays absent."""
    known = {
        "value": figure.value,
        "lower": figure.range.lower,
        "upper": figure.range.upper,
        "difference": figure.difference,
        "difference_lower": figure.difference_range.lower,
        "difference_upper": figure.difference_range.upper,
        "lift": figure.lift,
        "lift_lower": figure.lift_range.lower,
        "lift_upper": figure.lift_range.upper,
    }
    return pb.VariantMetric(
        metric=figure.metric,
        verdict=figure.verdict,
        variance_removed=figure.removed,
        **{name: value for name, value in known.items() if isfinite(value)},
    )


def day(of: Day) -> pb.VariantDay:
    """A variant on a day."""
    counts = of.counts
    return pb.VariantDay(
        day=datetime.fromtimestamp(of.day * DAY_MS / 1000, UTC).date().isoformat(),
        variant=of.variant,
        impressions=int(counts["impressions"]),
        clicks=int(counts["click"]),
        mutes=int(counts["mute"]),
        target_impressions=int(counts["target"]),
        reward=counts["reward"],
        pre_period=of.before,
    )


def change(entry: Entry) -> pb.VariantChange:
    """What was stopped or resumed."""
    return pb.VariantChange(
        variant=entry.variant,
        stopped=entry.action == "stopped",
        time=timestamp(entry.at_ms),
        who=entry.who,
        why=entry.why,
    )


def timestamp(time_ms: int) -> Timestamp:
    """Of milliseconds since the Unix epoch."""
    found = Timestamp()
    found.FromMilliseconds(time_ms)
    return found
