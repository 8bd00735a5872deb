"""``python -m benchmarks.learning [--json] [--only CHECK …] [--data DIR] [--report FILE]``"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"  # before numpy is imported: every peer has one core

from benchmarks.learning.figure import Figure, report  # noqa: E402

CHECKS = ("bandit10arm", "multiclass", "estimators", "movielens", "speed")


def main() -> int:
    """Runs the checks; 1 when a reference is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=CHECKS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with bandit10arm/")
    parser.add_argument("--report", type=Path, help="write the figures into this Markdown file")
    options = parser.parse_args()
    sections: list[tuple[str, str, list[Figure]]] = []
    for name in options.only:
        check = importlib.import_module(f"benchmarks.learning.{name}")
        figures: list[Figure] = []
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="banditmesh-bench-") as scratch:
            for figure in check.run(Path(scratch), options.data):
                figures.append(figure)
                _tell(figure, as_json=options.json)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        sections.append((name, (check.__doc__ or "").strip(), figures))
    if options.report:
        options.report.write_text(report(sections))
    return int(any(figure.met is False for _, _, figures in sections for figure in figures))


def _tell(figure: Figure, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(figure)), flush=True)
    else:
        met = {None: "", True: "met", False: "MISSED"}[figure.met]
        print(f"{figure.check:12} {figure.what:60} {figure.value:<10.5g} {figure.reference:28} {met}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
