"""How fast examples become files, and how large they are: ``python -m benchmarks.archive [--json]``.

What is measured is the archive's own work on one core, in CPU time, so a busy machine changes little: from the bytes of
records to the bytes of Parquet. Beside it stands the least that anything in Python could do with the same records:
parse them. Reading them from Kafka is `benchmarks.stream`'s.

Examples are as those of a large placement: 100 million users, 3 000 contents by Zipf's law, 12 hashed features each, a
click in twenty.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable

import numpy as np
from prometheus_client import CollectorRegistry

from banditmesh.archive.parquet import encode
from banditmesh.archive.state import Mark
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.stream import Consumed
from services.learner.archiving.examples import ExamplesFormat
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.archiving.rows import Chunk, by_folder

EXAMPLES, AT_ONCE = 30_000, 2000
ROWS_A_SECOND, BYTES = 50_000, 80
"""The goals of the issue."""
START_MS = 1_764_400_000_000


def records(n: int) -> list[Consumed]:
    """Records of topic `examples`."""
    rng = np.random.default_rng(0)
    contents = np.minimum(rng.zipf(1.3, n), 3000)
    known = rng.integers(1, 2**32, (12, 50))
    found = []
    time_ms = START_MS
    for number in range(n):
        time_ms += int(rng.integers(0, 2))
        clicked = rng.random() < 0.05
        decision = events_pb2.Decision(
            impression_id=rng.bytes(16),
            user_id=f"user-{rng.integers(0, 100_000_000)}",
            placement="talk-head-jp",
            service=("weather", "comics", "news")[number % 3],
            content_id=f"item-{contents[number]}",
            logic="similar",
            variant=("a", "b")[number % 2],
            model="fm-46d9a38c",
            model_version=120 + number // 20_000,
            propensity=float(rng.random()),
            features=events_pb2.Features(ids=known[np.arange(12), rng.integers(0, 50, 12)].tolist()),
            decided_at_ms=time_ms - 1500 - int(rng.integers(0, 3000)),
            origin=events_pb2.ORIGIN_POLICY,
        )
        example = events_pb2.Example(
            schema_version=1,
            source=events_pb2.Source(partition=3, offset=number, log=12345),
            joined=events_pb2.JoinedImpression(
                decision=decision,
                outcome=events_pb2.OUTCOME_CLICK if clicked else events_pb2.OUTCOME_NONE,
                reward=1.0 if clicked else 0.5,
                impression_time_ms=time_ms,
                reaction_time_ms=time_ms + int(rng.integers(0, 60_000)) if clicked else 0,
                reactions=[events_pb2.OUTCOME_CLICK] if clicked else [],
            ),
        )
        found.append(
            Consumed("examples", 3, number, time_ms + 600_000, b"", example.SerializeToString(deterministic=True))
        )
    return found


def archived(given: list[Consumed]) -> int:
    """Bytes of the files that these records become, made as the archiver makes them."""
    rows = ExamplesFormat(None, ArchiveMetrics(CollectorRegistry()), join_window_s=600.0)
    mark, chunks = Mark(), list[Chunk]()
    for start in range(0, len(given), AT_ONCE):
        for piece in rows.pieces(given[start : start + AT_ONCE], 99, mark):
            mark = piece.mark
            if piece.body is not None:
                chunks.append(piece.body)
    return sum(encode(table).size for _, table in by_folder(chunks, "examples"))


def parsed(given: list[Consumed]) -> int:
    """The least: parse the records, one after the other."""
    for record in given:
        events_pb2.Example.FromString(record.value)
    return 0


def cpu_s(work: Callable[[list[Consumed]], int], given: list[Consumed], times: int = 3) -> tuple[float, int]:
    """The least CPU time of some runs, and what the work returned."""
    best, found = float("inf"), 0
    for _ in range(times):
        began = time.process_time()
        found = work(given)
        best = min(best, time.process_time() - began)
    return best, found


def measure(examples: int = EXAMPLES) -> dict[str, float]:
    """Rows a second of one core's CPU time, bytes of a row at rest, and how often the parsing alone would be done."""
    given = records(examples)
    gc.freeze()  # as a service that has started: the collector need not look at what is there
    bare_s, _ = cpu_s(parsed, given)
    took_s, size = cpu_s(archived, given)
    return {
        "rows_per_second": examples / took_s,
        "bytes_per_example": size / examples,
        "times_parsing": took_s / bare_s,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line a figure")
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    options = parser.parse_args()
    found = measure(options.examples)
    figures = {
        "rows a second, one core": (found["rows_per_second"], ROWS_A_SECOND),
        "bytes a row at rest": (found["bytes_per_example"], BYTES),
        "times the parsing alone": (found["times_parsing"], None),
    }
    for name, (value, goal) in figures.items():
        if options.json:
            print(json.dumps({"name": f"archive: {name}", "value": value, "goal": goal}))
        else:
            print(f"{name}: {value:,.1f}" + ("" if goal is None else f"  (goal: {goal:,})"))


if __name__ == "__main__":
    main()
