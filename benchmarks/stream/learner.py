"""The learner: examples a second, from Kafka to the snapshot in the store, for each policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import open_store
from benchmarks.stream.stage import Figures, Run, Stage, Value, examples, metrics, total, write, write_ticks
from services.learner.merge import BUCKET_MS

POLICIES: Mapping[str, str] = {
    "linucb": "{linucb: {arm: logic}}",
    "linear": "{linear: {}}",
    "fm": "{fm: {factors: 16}}",
}
EXAMPLES = {"linucb": 150_000, "linear": 150_000, "fm": 80_000}
_LOOK_EVERY_S = 0.1


def measure(stage: Stage) -> dict[str, Figures]:
    """By policy."""
    values = examples(max(EXAMPLES.values()))
    return {policy: _one(stage, policy, values[: EXAMPLES[policy]]) for policy in POLICIES}


def _one(stage: Stage, policy: str, values: list[Value]) -> Figures:
    run = stage.mesh(policy=POLICIES[policy])
    asyncio.run(write(stage.kafka.bootstrap, run.topics.examples, values))
    # A bucket leaves the merge when every partition has been read past its end: the ticks must stand in a later one.
    time.sleep(BUCKET_MS / 1000)
    asyncio.run(write_ticks(stage.kafka.bootstrap, run.topics.examples))
    with run.service("learner") as learner:
        # From here on: what is applied goes up by whole buckets, all of them at once perhaps.
        began = time.monotonic()
        while True:
            found = metrics(learner)
            applied = total(found, "banditmesh_learner_examples_total")
            published = asyncio.run(_published(run, policy))
            if published >= len(values):
                break
            if time.monotonic() - began > 120:
                raise TimeoutError(f"{policy}: {applied:.0f} applied, {published} published after 120 s")
            time.sleep(_LOOK_EVERY_S)
        took = time.monotonic() - began
        cpu_us = 1e6 * found["process_cpu_seconds_total"] / len(values)
    return {"per_second": published / took, "cpu_us": cpu_us}


async def _published(run: Run, policy: str) -> int:
    """Examples in the newest snapshot."""
    store = open_store((run.stage.folder / f"{run.prefix}store").as_uri())
    try:
        snapshots = Snapshots(store, None)
        async for key in store.list("models/home/"):
            name = key.split("/")[2]
            if name.startswith(f"{policy}-"):
                pointer = await snapshots.pointer("home", name)
                return 0 if pointer is None else (await snapshots.load("home", name, pointer.version)).manifest.examples
        return 0
    finally:
        await store.close()
