"""``banditmesh experiment``: what the variants of a placement earn beside each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from banditmesh.cli.learner import DEADLINE_S, LearnerTarget, Metadata, call
from banditmesh.cli.plots import check_plot

if TYPE_CHECKING:
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
        int, typer.Option(min=0, help="0: since variants or weights changed last; 1: the time before that …")
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
    ratio = report.sample_ratio
    if ratio.mismatch:
        console.print(
            f"Sample ratio mismatch (p = {ratio.p_value:.2g}): users are missing from a variant. Believe no number "
            "here before you know why.",
            style="bold red",
        )
    elif len(report.variants) > 1:
        console.print(f"Users by variant are as promised (p = {ratio.p_value:.2g}).")
    if report.aa:
        console.print("A/A mode: all variants are served by the control's policy.")
    if report.HasField("start_time"):
        since = f"{report.start_time.ToDatetime():%Y-%m-%d %H:%M} UTC"
        console.print(f"Counted since {since}, when variants or weights changed; --era 1 has the time before.")
    if report.unsettled_impressions:
        unsettled = f"{report.unsettled_impressions:,} impressions"
        console.print(f"{unsettled} were decided within a minute of a change, by old or new weights: in no era.")
    for change in report.changes:
        console.print(_change(change))


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
        table.add_row(each.day, escape(each.variant), f"{shown:,}", *(_number(number / shown) for number in sums))
    return table


def _change(change: VariantChange) -> str:
    done = "stopped" if change.stopped else "resumed"
    why = f": {escape(change.why)}" if change.why else ""
    return (
        f"{change.time.ToDatetime():%Y-%m-%d %H:%M} UTC, {escape(change.variant)} {done} by {escape(change.who)}{why}"
    )


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
