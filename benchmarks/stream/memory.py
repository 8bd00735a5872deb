"""The joiner's memory while a window of ten minutes fills at the rate, and while it is emptied as fast as it fills."""

from __future__ import annotations

import asyncio
import time

from benchmarks.stream.stage import Figures, Stage, clicks, impressions, metrics, rss_mb, total, write

FED_PER_S = 10_000
WINDOW_MINUTES = 10


def measure(stage: Stage, minutes: float) -> Figures:
    """Feed it for so long. What waits for its window waits in Kafka; beyond ten minutes it is joined meanwhile."""
    run = stage.mesh(window=f"{WINDOW_MINUTES}m")
    seen: list[tuple[float, float, float, float]] = []
    found: dict[str, float] = {}

    async def feed() -> None:
        began, fed = time.monotonic(), 0
        while (since := time.monotonic() - began) < 60 * minutes:
            part = impressions(FED_PER_S)
            await write(stage.kafka.bootstrap, run.topics.impressions, part)
            await write(stage.kafka.bootstrap, run.topics.reactions, clicks(part))
            fed += FED_PER_S
            found.update(metrics(joiner))
            joined = total(found, "banditmesh_joiner_examples_total")
            seen.append((time.monotonic() - began, rss_mb(joiner.pid), fed, joined))
            await asyncio.sleep(max(fed / FED_PER_S - since, 0))

    with run.service("joiner") as joiner:
        asyncio.run(feed())
    took_s, _, fed, joined = seen[-1]
    return {
        "minutes": minutes,
        "fed": round(fed),
        "fed_per_second": fed / took_s,
        "joined": round(joined),
        "cores": found["process_cpu_seconds_total"] / took_s,
        "lag": {name: round(total(found, f"banditmesh_joiner_{name}_lag_records")) for name in ("reactions", "shown")},
        "rss_mb": [(round(at), round(mb), round(so_far)) for at, mb, _, so_far in seen[:: max(len(seen) // 30, 1)]],
    }
