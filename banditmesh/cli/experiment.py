"""``banditmesh experiment``: what the variants of a placement earn beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from banditmesh.cli.learner import DEADLINE_S, LearnerTarget, Metadata, call
from banditmesh.cli.plots import check_plot

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from banditmesh.contracts.learner.v1.learner_pb2 import (
        GetExperimentReportResponse,
        VariantChange,
        VariantMetric,
        VariantReport,
    )
    from banditmesh.contracts.learner.v1.learner_pb2_grpc import LearnerServiceAsyncStub

MISMATCH: Final = 3
"""The exit code of ``--strict``."""
_RATES: Final = ("reward", "click_rate", "mute_rate", "target_rate", "no_content_rate")
_COLOURS: Final = {"better": "green", "worse": "red", "open": ""}


def experiment(
    placement: Annotated[str, typer.Argument(help="The placement, as mesh.yaml names it.")],
    learner: LearnerTarget,
    era: Annotated[
        int, typer.Option(min=0, help="0: since the experiment was changed last; 1: the time before that …")
    ] = 0,
    days: Annotated[bool, typer.Option("--days", help="The series by day, too.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw differences and the series by day into this PNG file. Absent: no plot.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="VARIANT", help="Give a variant that a guardrail has stopped its users back. Absent: none."
        ),
    ] = None,
    why: Annotated[str, typer.Option(help="With --resume: why, to be written down.")] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 3 when the variants have not the users they should.")
    ] = False,
) -> None:
    """Show what the variants of a placement's [bold]experiment[/] earn, and how sure that is.

    Intervals hold at all times together: look whenever you like, and stop when you like.
    """
    from google.protobuf import json_format

    from banditmesh.contracts.learner.v1 import learner_pb2 as pb

    check_plot(plot)

    async def work(stub: LearnerServiceAsyncStub, metadata: Metadata) -> GetExperimentReportResponse:
        if resume is not None:
            request = pb.ResumeVariantRequest(placement=placement, variant=resume, why=why)
            was = (await stub.ResumeVariant(request, metadata=metadata, timeout=DEADLINE_S)).was
            Console(stderr=True).print(f"resumed {escape(resume)}; it was stopped because {escape(was.why)}")
        asked = pb.GetExperimentReportRequest(placement=placement, era=era)
        answer: GetExperimentReportResponse = await stub.GetExperimentReport(
            asked, metadata=metadata, timeout=DEADLINE_S
        )
        return answer

    report = call(learner, work)
    if as_json:
        print(json_format.MessageToJson(report, preserving_proto_field_name=True, indent=None))
    else:
        show(report, Console(), by_day=days)
    if plot is not None:
        from banditmesh.cli.experiment_plot import draw

        draw(placement, report, plot)
    if strict and report.sample_ratio.mismatch:
        raise typer.Exit(MISMATCH)


def show(report: GetExperimentReportResponse, console: Console, *, by_day: bool = False) -> None:
    """Print a report."""
    console.print(_variants(report))
    compared = [each for each in report.variants if any(metric.HasField("difference") for metric in each.metrics)]
    if compared:
        console.print(_differences(report, compared))
    if by_day:
        console.print(_days(report))
    for line in _notes(report):
        console.print(line, highlight=False)


def _notes(report: GetExperimentReportResponse) -> Iterator[str]:
    """What one has to know of the numbers, a sentence each."""
    from banditmesh.experiments.era import BUCKETS
    from banditmesh.experiments.sequence import FEWEST_BUCKETS, FEWEST_EVENTS

    ratio = report.sample_ratio
    if ratio.mismatch:
        yield (
            f"[bold red]Sample ratio mismatch (p = {ratio.p_value:.2g}): users are missing from a variant. Believe no "
            "number here before you know why.[/]"
        )
    elif not any(each.users for each in report.variants):
        yield "Nothing has been counted yet."
    elif len(report.variants) > 1:
        yield f"Users by variant are as promised (p = {ratio.p_value:.2g})."
    if report.aa:
        yield "A/A mode: all variants are served by the control's policy, so a difference is chance."
    if report.HasField("pre_period_end"):
        yield _pre_period(report)
    if any(metric.HasField("difference") and not metric.HasField("difference_lower") for metric in _metrics(report)):
        yield (
            "not yet: too little is known to go by the difference. An interval takes "
            f"{FEWEST_BUCKETS} groups of users in each variant, of {BUCKETS:,}, and of a rate {FEWEST_EVENTS} groups "
            "with the event and as many without."
        )
    if report.HasField("start_time"):
        since = _minute(report.start_time)
        yield f"Counted since {since}, when the experiment was changed; --era 1 has the time before."
    if report.HasField("watermark"):
        yield f"Of what was shown, all is counted that was closed by {_minute(report.watermark)}."
    if report.unsettled_impressions:
        unsettled = f"{report.unsettled_impressions:,} impressions"
        yield f"{unsettled} were decided within a minute of a change, by old or new weights: in no era."
    if report.unknown_impressions:
        yield f"{report.unknown_impressions:,} impressions were of variants that the experiment does not have."
    for change in report.changes:
        yield _change(change)


def _pre_period(report: GetExperimentReportResponse) -> str:
    """What the time before the start is worth."""
    end, shown = _minute(report.pre_period_end), sum(each.pre_period_impressions for each in report.variants)
    if not report.HasField("watermark") or report.watermark.ToNanoseconds() < report.pre_period_end.ToNanoseconds():
        return (
            f"It starts at {end}: until then the control's policy serves everybody, and nothing counts. What users do "
            f"meanwhile ({shown:,} impressions so far) will make the comparison sharper."
        )
    removed = ", ".join(
        f"{metric.variance_removed:.0%} of {escape(metric.metric)}"
        for metric in _metrics(report)
        if metric.variance_removed > 0
    )
    if not shown and not removed:
        return (
            f"It started at {end}, and nothing before that is known of its users: the comparison is as sharp as "
            "without a start."
        )
    return (
        f"It started at {end}. {shown:,} impressions of before then adjust the differences (CUPED), and explain of "
        f"their variance: {removed or 'nothing'}."
    )


def _metrics(report: GetExperimentReportResponse) -> Iterator[VariantMetric]:
    return (metric for each in report.variants for metric in each.metrics)


def _minute(time: Timestamp) -> str:
    return f"{time.ToDatetime():%Y-%m-%d %H:%M} UTC"


def _variants(report: GetExperimentReportResponse) -> Table:
    names = [
        name for name in _RATES if any(metric.metric == name for each in report.variants for metric in each.metrics)
    ]
    table = Table("", header_style="bold")  # variants beside each other: they are fewer than metrics
    columns = [["share", "users", "impressions", *names]]
    for each in report.variants:
        metrics = {metric.metric: metric for metric in each.metrics}
        name = escape(each.variant) + (" (control)" if each.variant == report.control else "")
        if each.HasField("stopped"):
            name += " [red](stopped)[/]"
        rates = [
            _number(metrics[name].value) if name in metrics and metrics[name].HasField("value") else "?"
            for name in names
        ]
        table.add_column(name, justify="right", overflow="fold")
        columns.append([f"{each.share:.1%}", f"{each.users:,}", f"{each.impressions:,}", *rates])
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def _differences(report: GetExperimentReportResponse, compared: Iterable[VariantReport]) -> Table:
    numbers = (
        f"difference to {escape(report.control)}",
        f"{report.confidence:.3g} at all times",
        "lift",
        "its interval",
    )
    table = Table(_left("variant"), _left("metric"), *map(_right, numbers), "", header_style="bold")
    for each in compared:
        shown = [metric for metric in each.metrics if metric.HasField("difference")]
        for at, metric in enumerate(shown):
            colour = _COLOURS.get(metric.verdict, "")
            table.add_row(
                "" if at else escape(each.variant),
                escape(metric.metric),
                _number(metric.difference, sign=True),
                _range(metric, "difference"),
                f"{metric.lift:+.1%}" if metric.HasField("lift") else "?",
                _range(metric, "lift", percent=True),
                f"[{colour}]{metric.verdict}[/]" if colour else metric.verdict,
                end_section=at == len(shown) - 1,
            )
    return table


def _days(report: GetExperimentReportResponse) -> Table:
    table = Table(
        _left("day"),
        _left("variant"),
        *map(_right, ("impressions", "reward", "click_rate", "mute_rate", "target_rate")),
        header_style="bold",
    )
    for each in report.days:
        shown = each.impressions
        sums = (each.reward, each.clicks, each.mutes, each.target_impressions)
        day = f"{each.day} before the start" if each.pre_period else each.day
        table.add_row(day, escape(each.variant), f"{shown:,}", *(_number(number / shown) for number in sums))
    return table


def _change(change: VariantChange) -> str:
    done = "stopped" if change.stopped else "resumed"
    why = f": {escape(change.why)}" if change.why else ""
    return f"{_minute(change.time)}, {escape(change.variant)} {done} by {escape(change.who)}{why}"


def _range(metric: VariantMetric, name: str, *, percent: bool = False) -> str:
    if not metric.HasField(f"{name}_lower"):  # type: ignore[arg-type]
        return "not yet"
    ends = (getattr(metric, f"{name}_{end}") for end in ("lower", "upper"))
    return " to ".join(f"{end:+.1%}" if percent else _number(end, sign=True) for end in ends)


def _number(value: float, *, sign: bool = False) -> str:
    return f"{value:+.4g}" if sign else f"{value:.4g}"


def _left(name: str) -> Column:
    return Column(name, overflow="fold")  # in a narrow terminal nothing is cut off: a day without its end is none


def _right(name: str) -> Column:
    return Column(name, justify="right", overflow="fold")
