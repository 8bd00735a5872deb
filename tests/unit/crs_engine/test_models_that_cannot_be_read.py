"""An error of the operating system while a snapshot is loaded, wherever it comes from, is this model's alone."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from banditmesh.bandits.registry import build
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import Store, open_store
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import Models
from tests.support.engine_world import MESH

FULL = OSError(errno.ENOSPC, "No space left on device")
FAILS = {
    "reading the pointer": (Store, "get"),
    "downloading": (Store, "download"),
    "making the folder": (Path, "mkdir"),
    "giving the download its name": (Path, "hardlink_to"),
    "taking away what is left of it": (Path, "unlink"),
    "opening it": (Path, "open"),
    "mapping it": (mmap, "mmap"),
}


async def published(store: Store) -> None:
    """A snapshot of each model."""
    for (placement, name), model in parse_mesh(MESH).models().items():
        tensors = build(model.policy, model.params).tensors()
        manifest = Manifest(placement, name, model.policy, model.params, 0, 1_700_000_000_000, 1, {0: 1}, {0: 1})
        await Snapshots(store, None).publish(manifest, tensors, after=None)


@pytest.fixture
def failing_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
    """Makes the next call of something fail as on a full disk; those after it work."""

    def fail(owner: Any, name: str) -> None:
        real, left = getattr(owner, name), [FULL]

        def once(*args: Any, **options: Any) -> Any:
            if left:
                raise left.pop()
            return real(*args, **options)

        monkeypatch.setattr(owner, name, once)

    return fail


@pytest.mark.parametrize("where", FAILS)
async def test_the_others_are_loaded_and_it_is_the_next_time(
    where: str, tmp_path: Path, failing_once: Callable[[Any, str], None]
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    await published(store)
    registry = CollectorRegistry()
    snapshots = Snapshots(store, tmp_path / "cache")
    models = Models.of(parse_mesh(MESH), snapshots, ManualClock(), EngineMetrics(registry))
    owner, name = FAILS[where]
    failing_once(store if owner is Store else owner, name)

    await models.poll()
    loaded = [slot.loaded.version for slot in models.slots.values()]
    await models.poll()

    assert sorted(loaded) == [0] + [1] * (len(loaded) - 1)
    assert {slot.loaded.version for slot in models.slots.values()} == {1}
    counted = [each for each in registry.collect() if each.name == "banditmesh_engine_model_unread"]
    assert sum(sample.value for sample in counted[0].samples if sample.name.endswith("_total")) == 1
    await store.close()
