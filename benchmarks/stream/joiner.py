"""The joiner: examples a second out of a backlog, beside a bare consume–produce loop, and its memory meanwhile."""

from __future__ import annotations

import asyncio
import math
import time

from benchmarks.stream.stage import Figures, Stage, clicks, impressions, metrics, rss_mb, total, write

BACKLOG = 150_000
CATCH_UP_PER_S = 5 * 5_800
FLAT_S = 60.0
FED_PER_S = 10_000
_LOOK_EVERY_S = 0.25


def measure(stage: Stage) -> Figures:
    """See the module."""
    figures = _backlog(stage)
    figures["cores_for_catch_up"] = math.ceil(CATCH_UP_PER_S / figures["per_second"])
    return figures | _memory(stage)


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


def _memory(stage: Stage) -> Figures:
    """A window of ten minutes that is filled at the rate: what waits, waits in Kafka."""
    run = stage.mesh(window="10m")
    seen: list[tuple[float, float]] = []

    async def feed() -> int:
        began, fed = time.monotonic(), 0
        while time.monotonic() - began < FLAT_S:
            part = impressions(FED_PER_S)
            await write(stage.kafka.bootstrap, run.topics.impressions, part)
            await write(stage.kafka.bootstrap, run.topics.reactions, clicks(part))
            fed += FED_PER_S
            seen.append((time.monotonic() - began, rss_mb(joiner.pid)))
            await asyncio.sleep(max(fed / FED_PER_S - (time.monotonic() - began), 0))
        return fed

    with run.service("joiner") as joiner:
        fed = asyncio.run(feed())
    return {
        "window_fed": fed,
        "window_fed_per_second": fed / FLAT_S,
        "window_rss_mb": [(round(at), round(mb)) for at, mb in seen[:: max(len(seen) // 8, 1)]],
    }
