"""``python -m benchmarks.online [--rows N] [--only LOG …] [--report FILE]``: one pass over each log, side by side.

A setting is picked for each of Vowpal Wabbit's explorations, and among our policies, by what it earned on the first
tenth of the log; what stands in the report is what that setting earned on the whole of it. Our default has one setting.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"  # before numpy is imported: every peer has one core

import numpy as np  # noqa: E402

from banditmesh.bandits.registry import DEFAULT  # noqa: E402
from banditmesh.decisions.encoder import encode  # noqa: E402
from banditmesh.decisions.reader import batches  # noqa: E402
from banditmesh.decisions.spec import parse  # noqa: E402
from banditmesh.decisions.view import View  # noqa: E402
from banditmesh.replay.online import Simulation  # noqa: E402
from benchmarks.online import collection, peers  # noqa: E402

OURS = (DEFAULT, "stacked:alpha=0.1", "fm:scale=0.1", "linear:epsilon=0.02", "linucb", "linucb:alpha=0.5")


def main() -> int:
    """Runs the collection, a line a log; 1 when our default is behind the peer's best on more than a fifth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online", description=__doc__)
    parser.add_argument("--rows", type=int, default=3000, help="decisions of a log at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=collection.LOGS, default=list(collection.LOGS))
    parser.add_argument("--report", type=Path, help="write the figures into this Markdown file")
    options = parser.parse_args()
    lines = []
    ahead = []
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="banditmesh-bench-") as scratch:
            found = compare(name, Path(scratch), options.rows, options.seed)
        lines.append(_line(name, found))
        ahead.append(_ahead(found))
        print(lines[-1], flush=True)
        if options.report:
            options.report.write_text(_report(lines, ahead, options.rows))
    return int(np.mean(ahead) < 0.8)


def compare(name: str, scratch: Path, most: int, seed: int) -> dict[str, list[float]]:
    """The rewards of each of our SPECs and of each of the peer's settings, decision by decision."""
    rows: list[Mapping[str, Any]] = list(islice(collection.LOGS[name](seed), most))
    log = scratch / "log.jsonl"
    collection.write(rows, log)
    earned: dict[str, list[float]] = {text: [] for text in OURS}

    runs: list[Simulation] = []
    views: list[View] = []

    class Recorded(Simulation):
        def _learn(self, batch: Any, row: int, flat: int, propensity: float) -> None:
            earned[self.spec.text].append(float(batch.outcomes[flat]))
            super()._learn(batch, row, flat, propensity)

    for decisions in batches(log):
        runs = runs or [Recorded(parse(text), seed, None) for text in OURS]
        views = views or [run.spec.view(decisions) for run in runs]
        encoded = {view: encode(decisions, view) for view in set(views)}
        for run, view in zip(runs, views, strict=True):
            run.take(encoded[view], None)
    for settings in peers.FAMILIES.values():
        for setting in settings:
            earned[setting] = peers.rewards(rows, setting, seed)
    uniform = np.random.default_rng(seed)
    earned["random"] = [float(uniform.choice([each["reward"] for each in row["candidates"]])) for row in rows]
    return earned


def picked(found: Mapping[str, Sequence[float]], settings: Sequence[str]) -> tuple[str, float]:
    """The setting that earned most on the first tenth, and what it earned a decision on the whole log."""
    tenth = max(len(next(iter(found.values()))) // 10, 1)
    best = max(settings, key=lambda each: float(np.mean(found[each][:tenth])))
    return best, float(np.mean(found[best]))


def _peer(found: Mapping[str, Sequence[float]]) -> tuple[str, float]:
    return max((picked(found, settings) for settings in peers.FAMILIES.values()), key=lambda each: each[1])


def _ahead(found: Mapping[str, Sequence[float]]) -> bool:
    return float(np.mean(found[DEFAULT])) >= _peer(found)[1]


def _line(name: str, found: Mapping[str, Sequence[float]]) -> str:
    means = {each: float(np.mean(rewards)) for each, rewards in found.items()}
    peer, theirs = _peer(found)
    best = max(OURS, key=lambda each: means[each])
    ours = " | ".join(f"{means[each]:.4f}" for each in OURS)
    n = len(found[DEFAULT])
    verdict = f"{'yes' if means[DEFAULT] >= theirs else '**no**'} | {'yes' if means[best] >= theirs else '**no**'}"
    return f"| {name} | {n} | {means['random']:.4f} | {ours} | {theirs:.4f} ({peer}) | {verdict} |"


def _report(lines: Sequence[str], ahead: Sequence[bool], rows: int) -> str:
    columns = ["log", "decisions", "random", *(f"`{each}`" for each in OURS), "VW's best", "default ≥", "best ≥"]
    return "\n".join(
        [
            "# Learning on line",
            "",
            f"`make bench-online` made this page: reward per decision over one pass of at most {rows} decisions of",
            "each log of the collection (`benchmarks/online/collection.py`, `simulations.py`), each policy learning",
            "from its own decisions alone. Vowpal Wabbit has the crosses of context and action (`-q ca`) and its",
            "cover, softmax, squarecb and ε-greedy, each at the setting that earned most on the first tenth; the",
            "best of the four on the whole log stands here, which favours it. Our first column is the default.",
            "",
            "| " + " | ".join(columns) + " |",
            "|" + "---|" * len(columns),
            *lines,
            "",
            f"The default is at least as good as Vowpal Wabbit's best on {sum(ahead)} of {len(ahead)} logs.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
