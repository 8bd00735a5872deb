"""The page that `python -m benchmarks.online` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from banditmesh.bandits.registry import DEFAULT
from benchmarks.online import drift

OURS: Final = (DEFAULT, "stacked:epsilon=0.02", "stacked:explore=squarecb", "fm", "linucb:alpha=0.1")


@dataclass(frozen=True)
class Line:
    """What was earned a decision, on average over the seeds: by random choice, by each of ours, by the best of ours and
    VW's best, each the best of its seed."""

    log: str
    decisions: int
    random: float
    ours: Mapping[str, float]
    best: float
    peer: float
    settings: tuple[str, ...]

    @property
    def ahead(self) -> bool:
        """Whether our default is not behind."""
        return self.ours[DEFAULT] >= self.peer

    @property
    def best_ahead(self) -> bool:
        """Whether our best is not behind."""
        return self.best >= self.peer


def row(line: Line) -> str:
    """A log, as a line of the table."""
    ours = " | ".join(f"{line.ours[each]:.4f}" for each in OURS)
    verdict = " | ".join("yes" if each else "**no**" for each in (line.ahead, line.best_ahead))
    settings = ", ".join(line.settings)
    sides = f"{line.best:.4f} | {line.peer:.4f} ({settings})"
    return f"| {line.log} | {line.decisions} | {line.random:.4f} | {ours} | {sides} | {verdict} |"


def drift_row(text: str, found: drift.Drift) -> str:
    """A policy in the long simulation, as a line of its table."""
    back = f"{found.back}" if found.back else "not within the run"
    shares = ", ".join(f"{each:.2f}" for each in found.shares)
    return f"| `{text}` | {found.regret:.4f} | {found.before:.4f} | {back} | {shares} | {found.usual:.2f} |"


def report(lines: Sequence[Line], drifts: Mapping[str, drift.Drift], rows: int, seeds: range, draws: int) -> str:
    """The whole page, in Markdown."""
    columns = [
        "log",
        "decisions",
        "random",
        *(f"`{each}`" for each in OURS),
        "best of ours",
        "VW's best",
        "default ≥",
        "best ≥",
    ]
    ahead, best = (sum(each) for each in zip(*((line.ahead, line.best_ahead) for line in lines), strict=True))
    text = [
        "# Learning on line",
        "",
        "`make bench-online` made this page: reward per decision over one pass of each log of the collection",
        f"(`benchmarks/online/collection.py`, `simulations.py`), at most {rows} decisions, each policy learning from",
        f"its own decisions alone; means over the seeds {seeds.start} to {seeds.stop - 1} of rows and draws, {draws} "
        f"draw{'s' if draws > 1 else ''} over the rows of a seed. In",
        "simulations what was picked counts with what it earns on average. Vowpal Wabbit has the crosses of context",
        "and action (`-q ca`) and its cover, softmax, squarecb and ε-greedy, each at the setting that earned most on",
        "the first tenth; the best of the four on the whole log stands here, in each seed anew, which favours it. Our",
        "first column is the default; ours have one setting each, and *best of ours* is the best in each seed, alike.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *map(row, lines),
        "",
        f"The default is at least as good as Vowpal Wabbit's best on {ahead} of {len(lines)} logs, the best of ours on "
        f"{best}.",
        "",
    ]
    return "\n".join([*text, *(_drifting(drifts, seeds.start) if drifts else [])])


def _drifting(drifts: Mapping[str, drift.Drift], seed: int) -> list[str]:
    world = drift.WORLD
    chance = next(iter(drifts.values())).random
    return [
        "## Drift, a shift, new arms",
        "",
        f"Seed {seed}: {world.decisions} decisions between {world.offered} of {world.alive} arms, of which",
        f"{world.born} in 1 000 decisions are replaced; arms drift, and after {world.shift} decisions users change",
        "what they like. Regret is the chance of a click of the best candidate less that of what was picked; random:",
        f"{chance:.4f}. Back: decisions from the shift until the regret of 2 000 is what it was before. New arms:",
        "impressions while they were offered for the first 50, 100 and 200 times, as a multiple of an equal share;",
        "beside it those of all other arms.",
        "",
        "| policy | regret | before the shift | back after | new arms | others |",
        "|---|---|---|---|---|---|",
        *(drift_row(each, found) for each, found in drifts.items()),
        "",
    ]
