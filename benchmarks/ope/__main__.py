"""``python -m benchmarks.ope [--logs N] [--only WORD] [--report FILE]``"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"  # before numpy is imported

from benchmarks.ope.coverage import Coverage, measured  # noqa: E402
from benchmarks.ope.report import GOAL, report  # noqa: E402
from benchmarks.ope.worlds import WORLDS  # noqa: E402


def main() -> int:
    """Measures; 1 when an interval of ours covers less often than it should."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ope", description=__doc__)
    parser.add_argument("--logs", type=int, default=500, help="of each world")
    parser.add_argument("--only", default="", help="worlds whose name has this in it")
    parser.add_argument("--report", type=Path, help="write the tables into this Markdown file")
    options = parser.parse_args()
    found: dict[str, Coverage] = {}
    for name, world in WORLDS.items():
        if options.only in name:
            started = time.monotonic()
            found[name] = measured(world, options.logs)
            worst = min(found[name].ours.values(), key=lambda each: each.share)
            least = f"least {worst.share:.1%} ({worst.name})"
            print(f"{name:50} {least:28} {time.monotonic() - started:.0f} s", flush=True)
    if options.report:
        options.report.write_text(report(found, options.logs))
    return int(any(each.share < GOAL for world in found.values() for each in world.ours.values()))


if __name__ == "__main__":
    sys.exit(main())
