"""``python -m benchmarks.online [--rows N] [--seeds K] [--first SEED] [--draws K] [--only LOG …] [--report FILE]``.

One pass over each log, and the long simulation with the first seed. A setting is picked for each of Vowpal Wabbit's
explorations by what it earned on the first tenth of the log; what stands in the report is what that setting earned on
the whole of it. Our SPECs have one setting each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"  # before numpy is imported: every peer has one core

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from benchmarks.online import collection, drift, peers, runs  # noqa: E402
from benchmarks.online.report import DEFAULT, OURS, Line, drift_row, report, row  # noqa: E402

_DRIFTING = (DEFAULT, "linear", "popularity")
_BETWEEN_DRAWS = 1000  # seeds of the draws over one seed's rows; the first draw's is that of the rows

Earned = Mapping[str, NDArray[np.float64]]


def main() -> int:
    """Runs the collection, a line a log; 1 when our default is behind the peer's best on more than a fifth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online", description=__doc__)
    parser.add_argument("--rows", type=int, default=1500, help="decisions of a log at most")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each log, each with rows and draws of its own")
    parser.add_argument("--first", type=int, default=0, help="the first of these seeds")
    parser.add_argument("--draws", type=int, default=1, help="runs over the same rows of each log, both sides alike")
    parser.add_argument("--only", nargs="+", choices=collection.LOGS, default=list(collection.LOGS))
    parser.add_argument("--no-drift", action="store_true", help="leave the long simulation out")
    parser.add_argument("--report", type=Path, help="write the figures into this Markdown file")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    lines: list[Line] = []
    drifts = {} if options.no_drift else drifting(options.first)
    for text, found in drifts.items():
        print(drift_row(text, found), flush=True)
    for name in options.only:
        lines.append(summed(name, [compare(name, options.rows, seed, options.draws) for seed in seeds]))
        print(row(lines[-1]), flush=True)
        if options.report:
            options.report.write_text(report(lines, drifts, options.rows, seeds, options.draws))
    return int(np.mean([line.ahead for line in lines]) < 0.8)


def compare(name: str, most: int, seed: int, draws: int) -> Earned:
    """float64[n] each: what each of our SPECs, each of the peer's settings and random choice earned, row by row, on
    average over the draws."""
    rows: runs.Rows = list(islice(collection.LOGS[name](seed), most))
    texts = [peers.written(row) for row in rows]
    found = [_drawn(rows, texts, seed + _BETWEEN_DRAWS * draw) for draw in range(draws)]
    return {text: np.mean([each[text] for each in found], axis=0) for text in found[0]}


def _drawn(rows: runs.Rows, texts: Sequence[Sequence[str]], seed: int) -> Earned:
    with tempfile.TemporaryDirectory(prefix="banditmesh-bench-") as scratch:
        found = runs.picks(rows, OURS, seed, Path(scratch))
    for settings in peers.FAMILIES.values():
        for setting in settings:
            found[setting] = peers.picks(rows, texts, setting, seed)
    uniform = np.random.default_rng(seed)
    found["random"] = [int(uniform.integers(len(row["candidates"]))) for row in rows]
    return {text: runs.worth(rows, picked) for text, picked in found.items()}


def summed(name: str, earned: Sequence[Earned]) -> Line:
    """The line of a log, of one run a seed."""
    best = [_peer(each) for each in earned]
    means = {text: float(np.mean([each[text].mean() for each in earned])) for text in ("random", *OURS)}
    ours = float(np.mean([max(each[text].mean() for text in OURS) for each in earned]))
    peer = float(np.mean([value for _, value in best]))
    settings = tuple(dict.fromkeys(setting for setting, _ in best))
    return Line(name, len(earned[0]["random"]), means.pop("random"), means, ours, peer, settings)


def _peer(earned: Earned) -> tuple[str, float]:
    """The best of the families, each at the setting that earned most on the first tenth."""
    tenth = max(len(earned["random"]) // 10, 1)
    picked = [
        max(settings, key=lambda each: float(earned[each][:tenth].mean())) for settings in peers.FAMILIES.values()
    ]
    return max(((setting, float(earned[setting].mean())) for setting in picked), key=lambda each: each[1])


def drifting(seed: int) -> dict[str, drift.Drift]:
    """By SPEC: how it fares in the long simulation."""
    rows = list(drift.WORLD.rows(seed))
    with tempfile.TemporaryDirectory(prefix="banditmesh-bench-") as scratch:
        found = runs.picks(rows, _DRIFTING, seed, Path(scratch))
    return {text: drift.followed(rows, picked) for text, picked in found.items()}


if __name__ == "__main__":
    sys.exit(main())
