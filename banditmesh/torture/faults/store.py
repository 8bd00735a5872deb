"""The object store: errors, slowness, no room, and snapshots that were written by half."""

from __future__ import annotations

import json
from typing import Any, Final

from banditmesh.torture.network import Mode
from banditmesh.torture.scene import Scene
from banditmesh.torture.world import BUCKET, READY_WITHIN_S

MODES: Final[tuple[Mode, ...]] = ("500", "503", "507", "hang", "slow")
_WORDS: Final = {
    "500": "answers 500",
    "503": "answers 503",
    "507": "is full: answers 507",
    "hang": "does not answer: timeouts",
    "slow": "is slow",
}


async def troubled(scene: Scene) -> None:
    """The store answers 500, then 503, is full, does not answer, is slow; learners are killed meanwhile."""
    link = scene.world.links["s3"]
    try:
        for mode in MODES:
            scene.note(f"the store {_WORDS[mode]}")
            link.mode = mode
            await scene.sleep(3.0, 5.0)
            learners = scene.world.supervisor.of("learner")
            await scene.kill(learners[int(scene.rng.integers(len(learners)))])
            await scene.sleep(1.0)
    finally:
        link.mode = "pass"
    scene.note("the store is well")


async def half_written(scene: Scene) -> None:
    """A snapshot is half there: of the next version only a part, of the newest one only the first half of its bytes."""
    await scene.world.supervisor.until_ready(scene.world.supervisor.of("learner"), READY_WITHIN_S)
    await scene.sleep(3.0)
    for what in await scene.world.supervisor.call(lambda: _halve(scene.world.s3.client())):
        scene.note(what)
    for learner in scene.world.supervisor.of("learner"):
        await scene.kill(learner)
    engines = scene.world.supervisor.of("crs_engine")
    await scene.kill(engines[int(scene.rng.integers(len(engines)))])
    await scene.sleep(6.0)


def _halve(client: Any) -> list[str]:
    """Leave half of things in the store; returns what was done."""
    done = []
    names = [each["Key"] for each in client.list_objects_v2(Bucket=BUCKET, Prefix="models/").get("Contents", ())]
    for pointer in (name for name in names if name.endswith("/current.json")):
        folder = pointer.removesuffix("current.json")
        version = int(json.loads(client.get_object(Bucket=BUCKET, Key=pointer)["Body"].read())["version"])
        newest = f"{folder}{version:08d}/tensors.safetensors"
        body = client.get_object(Bucket=BUCKET, Key=newest)["Body"].read()
        client.put_object(Bucket=BUCKET, Key=newest, Body=body[: len(body) // 2])
        client.put_object(Bucket=BUCKET, Key=f"{folder}{version + 1:08d}/tensors.safetensors", Body=body[:10])
        done.append(f"{folder}: half of version {version}, ten bytes of version {version + 1}")
    return done
