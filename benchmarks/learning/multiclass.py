"""Multi-class data as bandits: a row's class is the one candidate that earns 1, the policy sees its own pick's reward
alone, one pass in random order. The error is the share of rows without reward; means over the seeds. Vowpal Wabbit
(`--cb_explore_adf -q ca`) has the same rows, and draws from its own probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import vowpalwabbit
from sklearn import datasets

from banditmesh.decisions.spec import parse
from banditmesh.replay.replay import Options, replay
from benchmarks.learning.figure import Figure

SEEDS = 3
DATA = ("digits", "wine", "breast_cancer")
VW = {
    "cover 3": "--cover 3",
    "cover 16": "--cover 16",
    "softmax 1": "--softmax --lambda 1",
    "softmax 10": "--softmax --lambda 10",
    "squarecb": "--squarecb",
}


def run(scratch: Path, data: Path) -> Iterator[Figure]:
    """See the module."""
    for name in DATA:
        bunch: Any = getattr(datasets, f"load_{name}")()
        n_features, n_classes = bunch.data.shape[1], len(bunch.target_names)
        ours: dict[str, list[float]] = {}
        theirs: dict[str, list[float]] = {}
        for seed in range(SEEDS):
            order = np.random.default_rng(seed).permutation(len(bunch.target))
            x, y = bunch.data[order], bunch.target[order]
            log = scratch / f"{name}-{seed}.jsonl"
            write(log, x, y, n_classes)
            specs = [parse(text) for text in (f"linucb:dense=x0..x{n_features - 1},alpha=0.1", "linucb", "linear")]
            _, results = replay(log, specs, Options("simulate"))
            for (each,) in results:
                ours.setdefault(each.spec.text, []).append(1 - each.tally.mean)
            for label, options in VW.items():
                theirs.setdefault(label, []).append(vw_error(options, x, y, n_classes, seed))
        best_peer = min(float(np.mean(errors)) for errors in theirs.values())
        best = min(float(np.mean(errors)) for errors in ours.values())
        for label, errors in theirs.items():
            yield Figure("multiclass", f"{name}: error of VW {label}", float(np.mean(errors)))
        for text, errors in ours.items():
            yield Figure("multiclass", f"{name}: error of {text}", float(np.mean(errors)))
        yield Figure("multiclass", f"{name}: our best error", best, f"<= {best_peer:.4f}, VW's best", best <= best_peer)


def write(log: Path, x: np.ndarray, y: np.ndarray, n_classes: int) -> None:
    """Rows of full information: float[n, d] features, int[n] classes."""
    with log.open("w") as file:
        for values, label in zip(x.tolist(), y.tolist(), strict=True):
            context = {f"x{n}": value for n, value in enumerate(values)}
            candidates = [{"id": str(each), "reward": float(each == label)} for each in range(n_classes)]
            print(json.dumps({"context": context, "candidates": candidates}), file=file)


def vw_error(options: str, x: np.ndarray, y: np.ndarray, n_classes: int, seed: int) -> float:
    """Progressive error of Vowpal Wabbit over one pass."""
    vw = vowpalwabbit.Workspace(f"--cb_explore_adf {options} -q ca --quiet --random_seed {seed}")
    rng = np.random.default_rng(seed)
    wrong = 0
    for values, label in zip(x.tolist(), y.tolist(), strict=True):
        shared = "shared |c " + " ".join(f"x{n}:{value}" for n, value in enumerate(values))
        actions = [f"|a id={each}" for each in range(n_classes)]
        chances = np.array(vw.predict([shared, *actions]))
        pick = int(rng.choice(n_classes, p=chances / chances.sum()))
        cost = float(pick != label)
        wrong += int(cost)
        actions[pick] = f"0:{cost - 1}:{chances[pick]} {actions[pick]}"
        vw.learn([shared, *actions])
    vw.finish()
    return wrong / len(y)
