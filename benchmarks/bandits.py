"""What learning an example and scoring a decision cost each policy, on one core; Vowpal Wabbit too if installed.

    python -m benchmarks.bandits [--json]

A decision has 20 candidates with 10 categorical features each, and 10 that they share; one of the 20 is learned from.
"By its context" leaves the candidates' own features out.
Vowpal Wabbit sees the same features: as text, and as examples that were parsed before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.registry import POLICIES, build

CANDIDATES: Final = 20
FIELDS: Final = 10
VALUES: Final = 200
DECISIONS: Final = 512
EXAMPLES: Final = 16_384
Figure = tuple[str, str, float]
"""What was measured, of whom, microseconds."""


class Data:
    """Decisions as numbers of categories: context int[DECISIONS, FIELDS], own int[DECISIONS, CANDIDATES, FIELDS]."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.ids = rng.integers(0, 2**32, (2, FIELDS, VALUES), dtype=np.uint32)
        self.context = rng.integers(0, VALUES // 4, (DECISIONS, FIELDS))
        self.own = rng.integers(0, VALUES, (DECISIONS, CANDIDATES, FIELDS))
        self.shown = rng.integers(0, CANDIDATES, DECISIONS)
        self.clicked = rng.random(DECISIONS) < 0.3

    def candidates(self, n: int) -> Candidates:
        """The first n decisions."""
        keys = np.tile(np.arange(CANDIDATES, dtype=np.uint64), n)
        context = _rows(self.ids[0], self.context[:n])
        own = _rows(self.ids[1], self.own[:n].reshape(-1, FIELDS))
        return Candidates(np.arange(n + 1) * CANDIDATES, keys, keys, keys, context, own)

    def contexts(self, n: int) -> Candidates:
        """The first n decisions, whose candidates have no features of their own."""
        return replace(self.candidates(n), features=SparseRows.empty(n * CANDIDATES))

    def examples(self, n: int) -> Examples:
        """The decisions over and over, n rows."""
        at = np.arange(n) % DECISIONS
        shown = self.shown[at]
        features = _rows(self.ids[0], self.context[at]).beside(_rows(self.ids[1], self.own[at, shown]))
        keys, rewards = shown.astype(np.uint64), self.clicked[at].astype(np.float32)
        chances = np.full(n, 1 / CANDIDATES, np.float32)
        return Examples(keys, keys, keys, features, rewards, chances, np.arange(n, dtype=float), rewards > 0)

    def text(self, decision: int, labelled: bool) -> list[str]:
        """The decision in Vowpal Wabbit's format."""
        lines = ["shared |c " + " ".join(f"c{f}={v}" for f, v in enumerate(self.context[decision]))]
        for arm, own in enumerate(self.own[decision]):
            cost = f"0:{-float(self.clicked[decision])}:{1 / CANDIDATES} "
            label = cost if labelled and arm == self.shown[decision] else ""
            lines.append(f"{label}|a k={arm} " + " ".join(f"o{f}={v}" for f, v in enumerate(own)))
        return lines


def _rows(ids: NDArray[np.uint32], values: NDArray[np.int64]) -> SparseRows:
    chosen = ids[np.arange(FIELDS), values]
    return SparseRows(np.arange(len(values) + 1) * FIELDS, chosen.ravel(), np.ones(chosen.size, np.float32))


def best_us(call: Callable[[], object], per: int, times: int = 5) -> float:
    """The fastest of several runs, in microseconds for each of `per` items."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return min(spent) / per * 1e6


def ours(data: Data) -> Iterator[Figure]:
    """Every registered policy, with its defaults."""
    examples, batch, one = data.examples(EXAMPLES), data.candidates(DECISIONS), data.candidates(1)
    example, context = data.examples(1), data.contexts(1)
    for name in POLICIES:
        policy = build(name)
        policy.learn(examples)
        policy.score(batch)
        yield "learn an example", name, best_us(partial(policy.learn, examples), EXAMPLES, 3)
        policy.score(batch)
        yield "score a decision of a batch", name, best_us(partial(policy.score, batch), DECISIONS)
        yield "score a decision alone", name, best_us(partial(policy.score, one), 1, 50)
        yield "score one by its context", name, best_us(partial(policy.score, context), 1, 50)
        yield "learn an example alone", name, best_us(partial(policy.learn, example), 1, 50)


def peers(data: Data) -> Iterator[Figure]:
    """Vowpal Wabbit, where it is installed."""
    try:
        vw: Any = importlib.import_module("vowpalwabbit")
    except ModuleNotFoundError:
        return
    asked = [data.text(decision, labelled=False) for decision in range(DECISIONS)]
    told = [data.text(decision, labelled=True) for decision in range(DECISIONS)]
    workspace = vw.Workspace("--cb_adf -b 22 --quiet")

    def each(call: Callable[[Any], object], lines: list[Any]) -> None:
        for one in lines:
            call(one)

    for kind in ("text", "parsed"):
        if kind == "parsed":
            asked, told = ([workspace.parse(lines) for lines in decisions] for decisions in (asked, told))
        whom = f"vw --cb_adf, {kind}"
        yield "learn an example", whom, best_us(partial(each, workspace.learn, told), DECISIONS)
        yield "score a decision of a batch", whom, best_us(partial(each, workspace.predict, asked), DECISIONS)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description="What learning and scoring cost each policy.")
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    options = parser.parse_args()
    data = Data(np.random.default_rng(0))
    for measure in (ours, peers):
        for what, whom, us in measure(data):
            if options.json:
                print(json.dumps({"benchmark": "bandits", "what": what, "of": whom, "us": round(us, 2)}))
            else:
                print(f"{whom:24} {what:30} {us:10.2f} µs")


if __name__ == "__main__":
    main()
