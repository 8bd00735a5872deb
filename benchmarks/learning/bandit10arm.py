"""Rejection replay of disjoint LinUCB on 10 000 uniformly logged decisions between 10 arms (`bandit10arm`, MIT), over
the first 800 matches. The published results are 0.53 with alpha = 1 and 0.73125 with alpha = 0.02.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from banditmesh.decisions.spec import parse
from banditmesh.replay.replay import Options, replay
from benchmarks.learning.figure import Figure

MATCHES, SEEDS, TOLERANCE = 800, 3, 0.005
PUBLISHED = {"linucb:dense=x0..x9,alpha=1": 0.53, "linucb:dense=x0..x9,alpha=0.02": 0.73125}


def run(scratch: Path, data: Path) -> Iterator[Figure]:
    """See the module."""
    log = scratch / "bandit10arm.jsonl"
    convert(data / "bandit10arm" / "dataset.txt.gz", log)
    specs = [parse(text) for text in PUBLISHED]
    _, results = replay(log, specs, Options("rejection", limit=MATCHES, seeds=SEEDS))
    for (text, published), runs in zip(PUBLISHED.items(), results, strict=True):
        for each in runs:
            met = each.tally.matches == MATCHES and abs(each.tally.mean - published) <= TOLERANCE
            what = f"{text}, seed {each.seed}, reward a match"
            yield Figure("bandit10arm", what, each.tally.mean, f"{published} ± {TOLERANCE}", met)


def convert(source: Path, log: Path) -> None:
    """The published table (arm from 1, reward, ten features of each of ten arms) as a decision log."""
    with gzip.open(source, "rt") as rows, log.open("w") as file:
        for number, row in enumerate(rows):
            cells = row.split()
            features = [float(cell) for cell in cells[2:]]
            candidates = [
                {"id": str(arm + 1), "features": {f"x{n}": features[10 * arm + n] for n in range(10)}}
                for arm in range(10)
            ]
            shown, reward = int(cells[0]) - 1, float(cells[1])
            print(json.dumps({"t": number, "candidates": candidates, "shown": shown, "reward": reward}), file=file)
