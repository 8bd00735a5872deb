"""Judgements as a picture: estimates with their intervals, and what each rule costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from banditmesh.output import output

if TYPE_CHECKING:
    from banditmesh.replay.judgement import Judgement


def draw(found: Judgement, path: Path) -> None:
    """Draw a PNG file: each metric's estimates with their intervals, and what the log had; below them, for each rule
    that was left out, how much more the policy would earn.
    """
    import matplotlib as mpl  # heavy, and only needed at the very end

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from banditmesh.replay.judgement import SHOWN_ESTIMATORS

    metrics, rules = len(found.metrics), {rule: each.gain for rule, each in found.without.items() if each.gain}
    size, heights = (
        (4 * metrics, 3.5 + (1 + 0.3 * len(rules) if rules else 0)),
        [3.5, *([1 + 0.3 * len(rules)] if rules else [])],
    )
    figure, axes = plt.subplots(
        len(heights), metrics, figsize=size, layout="constrained", squeeze=False, height_ratios=heights
    )
    for axis, (metric, judged) in zip(axes[0], found.metrics.items(), strict=True):
        names = ["best", *SHOWN_ESTIMATORS]
        for at, estimate in enumerate([judged.best, *(judged.estimates[name] for name in SHOWN_ESTIMATORS)]):
            axis.plot([estimate.interval.lower, estimate.interval.upper], [-at, -at], linewidth=3, color=f"C{at}")
            axis.plot([estimate.value], [-at], "o", color=f"C{at}")
        axis.axvline(judged.logged, color="black", linewidth=0.8, linestyle="--", label="logged")
        axis.set_yticks([-at for at in range(len(names))], names)
        axis.set(title=metric, xlabel="95 % interval")
        axis.legend(fontsize="small")
    if rules:
        for axis, metric in zip(axes[1], found.metrics, strict=True):
            for at, gain in enumerate(rules.values()):
                value, (lower, upper) = gain.estimates[metric].value, gain.estimates[metric].interval
                axis.plot([lower, upper], [-at, -at], linewidth=3, color="C7")
                axis.plot([value], [-at], "o", color="C7")
            axis.axvline(0.0, color="black", linewidth=0.8)
            axis.set_yticks([-at for at in range(len(rules))], [f"without {rule}" for rule in rules])
            axis.set(xlabel=f"{metric}: more than with it", ylim=(0.5 - len(rules), 0.5))
    figure.suptitle(found.policy, fontsize="small")
    with output(path, "plot") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
