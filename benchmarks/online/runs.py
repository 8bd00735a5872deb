"""Policies on their way through rows of full information, and what they picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.exploration.choice import Choice
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.spec import parse
from banditmesh.replay.online import Simulation
from benchmarks.online import collection

Rows = Sequence[Mapping[str, Any]]


class _Recorded(Simulation):
    def __init__(self, text: str, seed: int) -> None:
        super().__init__(parse(text), seed, None)
        self.picks: list[int] = []

    def _earn(self, batch: LoggedBatch, rows: NDArray[np.int64], choice: Choice) -> None:
        self.picks += (choice.chosen - batch.candidates.offsets[rows]).tolist()
        super()._earn(batch, rows, choice)


def picks(rows: Rows, specs: Sequence[str], seed: int, scratch: Path) -> dict[str, list[int]]:
    """By SPEC: the place of the candidate that was picked in each row. scratch: a folder for the log."""
    log = scratch / "log.jsonl"
    collection.write(rows, log)
    runs = [_Recorded(text, seed) for text in specs]
    views = None
    for decisions in batches(log):
        views = views or [run.spec.view(decisions) for run in runs]
        encoded = {view: encode(decisions, view) for view in set(views)}
        for run, view in zip(runs, views, strict=True):
            run.take(encoded[view], None)
    return {text: run.picks for text, run in zip(specs, runs, strict=True)}


def worth(rows: Rows, picked: Sequence[int]) -> NDArray[np.float64]:
    """float64[n]: what the picks are worth, in each row: a candidate's chance where a simulation knows it, else its
    reward. What policies learn from is the reward."""
    found = (row["candidates"][pick] for row, pick in zip(rows, picked, strict=True))
    return np.array([each.get("mean", each["reward"]) for each in found], np.float64)
