"""``python -m benchmarks.stream [--report FILE] [--only ROW] [--minutes N]``: how fast the stream is."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from banditmesh.runtime.logging import configure_logging
from benchmarks import archive
from benchmarks.stream import joiner, latency, learner, memory, report, tracker
from benchmarks.stream.stage import Figures, staged

ROWS = ("tracker", "joiner", "memory", "learner", "latency", "archive")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, help="write Markdown there")
    parser.add_argument("--only", choices=ROWS, action="append", help="measure this alone; may be given several times")
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long the joiner's memory is looked at")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    configure_logging("benchmark", level="warning")
    figures = measure(arguments.only or ROWS, arguments.minutes)
    if arguments.json:
        print(json.dumps(figures))
    text = report.markdown(figures)
    if arguments.report:
        arguments.report.write_text(text)
    else:
        print(text)


def measure(rows: tuple[str, ...] | list[str], minutes: float) -> dict[str, Figures]:
    """Every row that is asked for; the joiner's memory for so many minutes."""
    found: dict[str, Figures] = {}

    def note(name: str, figures: Figures) -> None:
        found[name] = figures
        print(name, json.dumps(figures), file=sys.stderr, flush=True)  # what comes later may fail

    note("machine", {"load_before": os.getloadavg()[0]})
    with tempfile.TemporaryDirectory() as folder:
        with staged(Path(folder)) as stage:
            alone: dict[str, Callable[[], Figures]] = {
                "tracker": lambda: tracker.measure(stage),
                "joiner": lambda: joiner.measure(stage),
                "memory": lambda: memory.measure(stage, minutes),
                "learner": lambda: learner.measure(stage),
            }
            for name, act in alone.items():
                if name in rows:
                    note(name, act())
        if "latency" in rows:
            note("latency", latency.measure(Path(folder) / "latency"))
    if "archive" in rows:
        note("archive", archive.measure())
    return found


if __name__ == "__main__":
    main()
