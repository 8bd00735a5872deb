"""Publishing a fitted policy where the engine and the learner look for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from banditmesh.bandits.registry import policy_params
from banditmesh.fit.fit import Fitted
from banditmesh.runtime.addresses import FileAddress
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import connect


def save(fitted: Fitted, folder: Path, placement: str, *, now_ms: int) -> int:
    """Writes the next version of the model into the store that the folder is, and returns its number.

    No offsets stand in it: a learner that starts from it goes on with the first example of the topic.

    Raises:
        Superseded, or what the store raises.
    """
    return asyncio.run(_publish(fitted, FileAddress(folder.absolute()), placement, now_ms))


async def _publish(fitted: Fitted, address: FileAddress, placement: str, now_ms: int) -> int:
    store = connect(address)
    try:
        snapshots = Snapshots(store, None)
        spec = fitted.spec
        manifest = Manifest(
            placement=placement,
            model=spec.model,
            policy=spec.policy,
            params=policy_params(spec.policy, spec.params).model_dump(mode="json"),
            version=0,
            published_at_ms=now_ms,
            examples=fitted.examples,
            offsets={},
            sources={},
        )
        pointer = await snapshots.publish(
            manifest, fitted.policy.tensors(), after=await snapshots.pointer(placement, spec.model)
        )
        return pointer.version
    finally:
        await store.close()
