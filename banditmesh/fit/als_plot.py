"""The blend beside its two ends, by how much feedback a user has given."""

from __future__ import annotations

from pathlib import Path

from banditmesh.fit.als import Replayed
from banditmesh.output import output


def draw(replayed: Replayed, path: Path) -> None:
    """Write a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    k = replayed.best
    rows = replayed.table(k)
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for at, (name, style) in enumerate((("popular", "--"), ("personal", ":"), (f"blend, k = {replayed.ks[k]:g}", "-"))):
        axes.plot([row[0] for row in rows], [row[2 + at] for row in rows], style, marker="o", label=name)
    axes.set_xlabel("feedback that the user had given")
    axes.set_ylabel("gain of what was liked next")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    with output(path, "plot") as file:
        figure.savefig(file, format="png", dpi=120)
    pyplot.close(figure)
