"""What a process that starts while the store is away has of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from banditmesh.runtime.addresses import FileAddress
from banditmesh.runtime.errors import NotFound, PermissionDenied, Unavailable
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import StoredObject
from banditmesh.runtime.store.file import FileStore
from banditmesh.runtime.store.kept import KeptStore


class Moody(FileStore):
    """Raises what it is told to."""

    mood: Exception | None = None

    async def get(self, key: str) -> StoredObject:
        if self.mood is not None:
            raise self.mood
        return await super().get(key)

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        if self.mood is not None:
            raise self.mood
        return await super().get_if_changed(key, etag)


@pytest.fixture
def store(tmp_path: Path) -> Moody:
    return Moody(FileAddress(tmp_path / "store"))


MOODS = [Unavailable("away"), PermissionDenied("credentials have expired")]


@pytest.mark.parametrize("mood", MOODS, ids=["away", "refused"])
async def test_a_process_that_starts_while_the_store_is_away_has_the_last_ones_models(
    store: Moody, tmp_path: Path, mood: Exception
) -> None:
    manifest = Manifest(
        "home", "linucb-1", "linucb", {}, version=0, published_at_ms=1, examples=1, offsets={}, sources={}
    )
    tensors = {"a": np.arange(4, dtype=np.float32)}
    pointer = await Snapshots(store, None).publish(manifest, tensors, after=None)
    folder, cache = tmp_path / "kept", tmp_path / "cache"
    first = Snapshots(KeptStore(store, folder), cache)
    assert await first.pointer("home", "linucb-1") == pointer
    await first.load("home", "linucb-1", 1)

    store.mood = mood
    second = Snapshots(KeptStore(store, folder), cache)
    found = await second.moved("home", "linucb-1", None)
    assert found == pointer
    assert (await second.load("home", "linucb-1", 1)).tensors["a"].tolist() == [0, 1, 2, 3]
    with pytest.raises(type(mood)):  # and it goes on asking
        await second.moved("home", "linucb-1", found)

    store.mood = None
    assert await second.moved("home", "linucb-1", found) is None


async def test_what_was_never_read_is_still_away(store: Moody, tmp_path: Path) -> None:
    store.mood = Unavailable("away")
    with pytest.raises(Unavailable):
        await KeptStore(store, tmp_path / "kept").get("models/a.json")


async def test_what_the_store_says_is_gone_is_gone(store: Moody, tmp_path: Path) -> None:
    kept = KeptStore(store, tmp_path / "kept")
    await store.put("models/a.json", b"1")
    await kept.get("models/a.json")
    await store.delete("models/a.json")
    with pytest.raises(NotFound):
        await kept.get("models/a.json")


async def test_a_folder_that_cannot_be_written_to_costs_nothing_but_a_line(store: Moody, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    kept = KeptStore(store, tmp_path / "kept")
    await store.put("models/a.json", b"1")
    with capture_logs() as logs:
        assert (await kept.get("models/a.json")).body == b"1"
        assert (await kept.get("models/a.json")).body == b"1"
    assert len(logs) == 1
