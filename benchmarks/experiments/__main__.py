"""``python -m benchmarks.experiments [--experiments N] [--looks N] [--report FILE]``"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"  # before numpy is imported

from benchmarks.experiments.alarms import ALPHA, WORLDS, alarms, cuped, end_to_end, ratios  # noqa: E402
from benchmarks.experiments.power import power  # noqa: E402
from benchmarks.experiments.report import report  # noqa: E402


def main() -> int:
    """Measures; 1 when there are more false alarms than nominal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    parser.add_argument("--experiments", type=int, default=1000, help="of each world")
    parser.add_argument("--looks", type=int, default=200, help="at each experiment")
    parser.add_argument("--report", type=Path, help="write the tables into this Markdown file")
    options = parser.parse_args()
    started = time.monotonic()

    def said(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)

    found = {}
    for name, world in WORLDS.items():
        found[name] = alarms(options.experiments, options.looks, world)
        said(f"{name:48} {found[name].sequence:6.1%} false alarms, {found[name].peeked:.1%} of a fixed test peeked at")
    curves = power(max(100, options.experiments // 2), options.looks)
    said(f"power: {', '.join(f'{each.lift:+.0%} {each.sequence:.0%}' for each in curves)}")
    before, ratio, whole = cuped(200), ratios(options.experiments), end_to_end(max(20, options.experiments // 20))
    said(
        f"CUPED leaves {before.left:.0%} of the variance; sample ratio {ratio.false:.1%} false; tally {whole:.1%} false"
    )
    if options.report:
        options.report.write_text(report(found, curves, before, ratio, whole, options.experiments, options.looks))
    shares = [each.sequence for each in found.values()]
    return int(any(each > ALPHA for each in [*shares, ratio.false]))


if __name__ == "__main__":
    sys.exit(main())
