"""The learning curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from banditmesh.output import output
from banditmesh.replay.run import Run

_COLOURS, _LINES = 10, ("-", "--", ":", "-.")
_LEGEND_COLUMNS = 3


def plot(results: Sequence[Sequence[Run]], path: Path) -> None:
    """Draws reward per decision so far of every run, one colour a policy, into a PNG file. Needs matplotlib."""
    import matplotlib as mpl  # heavy, and only needed at the very end

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    below = 0.25 * -(-len(results) // _LEGEND_COLUMNS)  # inches that the legend takes
    figure, axes = plt.subplots(figsize=(9, 5 + below), layout="constrained")
    for number, runs in enumerate(results):
        for run in runs:
            points = run.tally.curve()
            label = run.spec.text if run is runs[0] else None
            axes.plot(
                [point.decisions for point in points],
                [point.so_far for point in points],
                color=f"C{number % _COLOURS}",
                linestyle=_LINES[number // _COLOURS % len(_LINES)],
                alpha=1.0 if run is runs[0] else 0.4,
                label=label,
            )
    axes.set(xlabel="decisions", ylabel="reward per decision so far")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=_LEGEND_COLUMNS, fontsize="small")
    with output(path, "plot") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
