"""An experiment as a picture: how variants differ from the control, and the series by day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from banditmesh.output import output

if TYPE_CHECKING:
    from banditmesh.contracts.learner.v1.learner_pb2 import GetExperimentReportResponse

_SHOWN: Final = ("reward", "click_rate", "mute_rate", "target_rate", "no_content_rate")


def _label(day: str, started: bool) -> str:
    return day if started else f"{day} before the start"


def draw(placement: str, report: GetExperimentReportResponse, path: Path) -> None:
    """Draw a PNG file. Needs matplotlib."""
    import matplotlib as mpl  # heavy, and only needed at the very end

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    rows = [
        (f"{variant.variant}: {metric.metric}", metric)
        for variant in report.variants
        for metric in variant.metrics
        if metric.metric in _SHOWN and metric.HasField("lift_lower")
    ]
    colours = {"better": "tab:green", "worse": "tab:red", "open": "tab:gray"}
    for at, (_, metric) in enumerate(reversed(rows)):
        left.plot(
            [100 * metric.lift_lower, 100 * metric.lift_upper], [at, at], color=colours[metric.verdict], linewidth=3
        )
        left.plot([100 * metric.lift], [at], "o", color=colours[metric.verdict])
    left.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    left.set(xlabel=f"lift over {report.control}, % ({report.confidence:.3g} at all times)", title=placement)
    days = [_label(*each) for each in sorted({(each.day, not each.pre_period) for each in report.days})]
    for variant in (each.variant for each in report.variants):
        rates = {
            _label(each.day, not each.pre_period): each.reward / each.impressions
            for each in report.days
            if each.variant == variant
        }
        right.plot(days, [rates.get(day, float("nan")) for day in days], marker="o", label=variant)
    right.set(ylabel="reward of an impression", title="by day (UTC)")
    right.tick_params(axis="x", rotation=45)
    right.grid(alpha=0.3)
    if report.variants:
        right.legend(fontsize="small")
    with output(path, "plot") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
