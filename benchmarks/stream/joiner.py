"""The joiner: examples a second out of a backlog, beside a bare consume–produce loop."""

from __future__ import annotations

import asyncio
import math
import time

from benchmarks.stream.stage import Figures, Stage, clicks, impressions, metrics, rss_mb, total, write

BACKLOG = 150_000
CATCH_UP_PER_S = 5 * 5_800
_LOOK_EVERY_S = 0.25


def measure(stage: Stage) -> Figures:
    """See the module."""
    figures = _backlog(stage)
    figures["cores_for_catch_up"] = math.ceil(CATCH_UP_PER_S / figures["per_second"])
    return figures


def _backlog(stage: Stage) -> Figures:
    run = stage.mesh(window="1s")
    shown = impressions(BACKLOG)
    asyncio.run(write(stage.kafka.bootstrap, run.topics.impressions, shown))
    asyncio.run(write(stage.kafka.bootstrap, run.topics.reactions, clicks(shown)))
    with run.service("joiner") as joiner:
        seen: list[tuple[float, float, float]] = []
        began = time.monotonic()
        while not seen or seen[-1][1] < BACKLOG:
            found = metrics(joiner)
            examples = total(found, "banditmesh_joiner_examples_total")
            seen.append((time.monotonic() - began, examples, rss_mb(joiner.pid)))
            if time.monotonic() - began > 150:
                raise TimeoutError(f"{examples:.0f} examples after 150 s")
            time.sleep(_LOOK_EVERY_S)
        cpu_us = 1e6 * found["process_cpu_seconds_total"] / BACKLOG
    middle = [each for each in seen if 0.05 * BACKLOG <= each[1] <= 0.95 * BACKLOG]
    per_second = (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0])
    bare = run.bare("consume-produce", run.topics.impressions, run.topics.examples, BACKLOG)
    return {
        "per_second": per_second,
        "cpu_us": cpu_us,
        "bare_per_second": bare["per_second"],
        "bare_cpu_us": bare["cpu_us"],
        "ratio": per_second / bare["per_second"],
        "backlog_rss_mb": [round(each[2]) for each in seen[:: max(len(seen) // 10, 1)]],
    }
