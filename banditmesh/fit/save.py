"""Publishing a fitted policy where the engine and the learner look for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from banditmesh.bandits.policy import Policy
from banditmesh.bandits.registry import model_name
from banditmesh.fit.fit import Fitted
from banditmesh.runtime.addresses import StoreAddress
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import Store, connect


def save(fitted: Fitted, address: StoreAddress, placement: str, *, now_ms: int) -> int:
    """Writes the next version of the model into a store, and returns its number.

    No offsets stand in it: a learner that starts from it goes on with the first example of the topic.

    Raises:
        Superseded, or what the store raises.
    """
    return asyncio.run(_publish(fitted, address, placement, now_ms))


async def _publish(fitted: Fitted, address: StoreAddress, placement: str, now_ms: int) -> int:
    store = connect(address)
    try:
        features = fitted.spec.features
        return await publish(store, placement, fitted.policy, fitted.examples, features=features, now_ms=now_ms)
    finally:
        await store.close()


async def publish(
    store: Store,
    placement: str,
    policy: Policy,
    examples: int,
    *,
    features: Mapping[str, Any] | None = None,
    now_ms: int,
) -> int:
    """Write the next version of a placement's model, and return its number. ``features``: see ``Manifest.features``.

    Raises:
        Superseded, or what the store raises.
    """
    snapshots = Snapshots(store, None)
    params = policy.params.model_dump(mode="json")
    manifest = Manifest(
        placement=placement,
        model=model_name(policy.name, params),
        policy=policy.name,
        params=params,
        version=0,
        published_at_ms=now_ms,
        examples=examples,
        offsets={},
        sources={},
        features=dict(features or {}),
    )
    after = await snapshots.pointer(placement, manifest.model)
    return (await snapshots.publish(manifest, policy.tensors(), after=after)).version
