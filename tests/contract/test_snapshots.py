"""What publishing and loading promise, over both kinds of store."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banditmesh.local.s3 import S3
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.snapshots import CACHED_VERSIONS, BadSnapshot, Manifest, Pointer, Snapshots, Superseded
from banditmesh.runtime.store import Store, open_store

MODEL = "linucb-1a2b3c4d"
FOLDER = f"models/home/{MODEL}"


def manifest(examples: int = 7) -> Manifest:
    return Manifest(
        placement="home",
        model=MODEL,
        policy="linucb",
        params={"ridge": 1.0, "half_life": None},
        version=0,
        published_at_ms=1_700_000_000_000,
        examples=examples,
        offsets={0: 12, 3: 40},
        sources={0: 11},
        watermark_ms=1_699_999_999_000,
    )


def tensors(number: float = 1.0) -> dict[str, np.ndarray]:
    return {"arms": np.array([1, 2], np.uint64), "moment": np.full((2, 3), number)}


@pytest.fixture(params=["file", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "file":
        url = (tmp_path / "store").as_uri()
    else:
        s3: S3 = request.getfixturevalue("s3")
        url = s3.url("banditmesh-tests", uuid.uuid4().hex)
    opened = open_store(url)
    yield opened
    await opened.close()


@pytest.fixture
def snapshots(store: Store, tmp_path: Path) -> Snapshots:
    return Snapshots(store, tmp_path / "cache")


@pytest.fixture
def rival(store: Store) -> Snapshots:
    """Another process on the same store."""
    return Snapshots(store, None)


async def keys(store: Store) -> list[str]:
    return [key async for key in store.list(FOLDER)]


async def test_nothing_is_published_at_first(snapshots: Snapshots) -> None:
    assert await snapshots.pointer("home", MODEL) is None
    assert await snapshots.list("home", MODEL, 10) == []


async def test_what_was_published_is_loaded_with_all_that_was_said_of_it(snapshots: Snapshots, store: Store) -> None:
    pointer = await snapshots.publish(manifest(), tensors(), after=None)
    assert pointer == await snapshots.pointer("home", MODEL)
    loaded = await snapshots.load("home", MODEL, pointer.version)
    assert replace(loaded.manifest, sha256="", tensors={}) == replace(manifest(), version=1)
    assert {name: array.tolist() for name, array in loaded.tensors.items()} == {
        name: array.tolist() for name, array in tensors().items()
    }
    assert not any(array.flags.writeable for array in loaded.tensors.values())
    assert await keys(store) == [
        f"{FOLDER}/00000001/manifest.json",
        f"{FOLDER}/00000001/tensors.safetensors",
        f"{FOLDER}/current.json",
    ]


async def test_loading_works_without_a_cache(rival: Snapshots) -> None:
    await rival.publish(manifest(), tensors(3.0), after=None)
    assert (await rival.load("home", MODEL, 1)).tensors["moment"].tolist() == [[3.0] * 3] * 2


async def test_the_same_tensors_have_the_same_checksum(snapshots: Snapshots) -> None:
    pointer = None
    for _ in range(2):
        pointer = await snapshots.publish(manifest(), tensors(), after=pointer)
    newest, older = await snapshots.list("home", MODEL, 2)
    assert newest.sha256 == older.sha256


async def test_versions_are_counted_on_and_listed_newest_first(snapshots: Snapshots) -> None:
    pointer = None
    for examples in (1, 2, 3):
        pointer = await snapshots.publish(manifest(examples), tensors(), after=pointer)
    assert [(each.version, each.examples) for each in await snapshots.list("home", MODEL, 2)] == [(3, 3), (2, 2)]
    assert await snapshots.versions("home", MODEL) == [1, 2, 3]


async def test_a_moved_pointer_is_seen_and_one_that_stands_is_not(snapshots: Snapshots, rival: Snapshots) -> None:
    assert await rival.moved("home", MODEL, None) is None
    first = await snapshots.publish(manifest(), tensors(), after=None)
    assert await rival.moved("home", MODEL, None) == first
    assert await rival.moved("home", MODEL, first) is None
    second = await snapshots.publish(manifest(), tensors(2.0), after=first)
    assert await rival.moved("home", MODEL, first) == second


async def test_the_second_of_two_publishers_is_superseded_and_leaves_nothing(
    snapshots: Snapshots, rival: Snapshots, store: Store
) -> None:
    first = await snapshots.publish(manifest(), tensors(), after=None)
    moved = await rival.publish(manifest(8), tensors(2.0), after=first)
    with pytest.raises(Superseded, match="names version 2, this publisher last saw version 1"):
        await snapshots.publish(manifest(9), tensors(3.0), after=first)
    assert await snapshots.pointer("home", MODEL) == moved
    assert not [key for key in await keys(store) if "/00000003/" in key]


async def test_of_two_first_publishers_one_is_superseded(snapshots: Snapshots, rival: Snapshots) -> None:
    both = await asyncio.gather(
        *(each.publish(manifest(), tensors(), after=None) for each in (snapshots, rival)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in both) == ["Pointer", "Superseded"]


async def test_what_a_crash_has_left_is_passed_over_and_never_current(snapshots: Snapshots, store: Store) -> None:
    first = await snapshots.publish(manifest(), tensors(), after=None)
    await store.put_new(f"{FOLDER}/00000002/tensors.safetensors", b"half of")
    assert await snapshots.pointer("home", MODEL) == first
    assert await snapshots.versions("home", MODEL) == [1]
    third = await snapshots.publish(manifest(8), tensors(), after=first)
    assert third.version == 3
    assert [each.version for each in await snapshots.list("home", MODEL, 10)] == [3, 1]
    assert (await store.get(f"{FOLDER}/00000002/tensors.safetensors")).body == b"half of"


class LosesAnswers:
    """A store whose pointer moves and whose answer to that is lost, once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lose = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def replace(self, key: str, body: bytes, etag: str) -> str:
        answer = await self._store.replace(key, body, etag)
        if self.lose:
            self.lose = False
            raise Unavailable("the answer was lost")
        return answer


async def test_a_publisher_whose_answer_was_lost_is_not_superseded_by_itself(store: Store) -> None:
    snapshots = Snapshots(LosesAnswers(store), None)
    first = await snapshots.publish(manifest(), tensors(), after=None)
    with pytest.raises(Unavailable):
        await snapshots.publish(manifest(8), tensors(), after=first)
    third = await snapshots.publish(manifest(9), tensors(), after=first)
    assert third == await snapshots.pointer("home", MODEL)
    assert (await snapshots.manifest("home", MODEL, third.version)).examples == 9


async def test_a_publisher_that_has_seen_another_move_is_superseded_in_spite_of_a_lost_answer(
    store: Store, rival: Snapshots
) -> None:
    snapshots = Snapshots(LosesAnswers(store), None)
    first = await snapshots.publish(manifest(), tensors(), after=None)
    with pytest.raises(Unavailable):
        await snapshots.publish(manifest(8), tensors(), after=first)
    await rival.publish(manifest(9), tensors(), after=await rival.pointer("home", MODEL))
    with pytest.raises(Superseded):
        await snapshots.publish(manifest(10), tensors(), after=first)


async def test_a_store_may_be_put_back_by_versions_that_a_publisher_remembers_and_by_no_more(store: Store) -> None:
    snapshots, current = Snapshots(store, None, remembered=3), f"{FOLDER}/current.json"
    pointer, before = None, []
    for examples in (1, 2, 3):
        pointer = await snapshots.publish(manifest(examples), tensors(), after=pointer)
        before.append((await store.get(current)).body)

    await store.put(current, before[1])
    pointer = await snapshots.publish(manifest(4), tensors(), after=pointer)
    assert pointer.version == 4

    await store.put(current, before[0])
    with pytest.raises(Superseded):
        await snapshots.publish(manifest(5), tensors(), after=pointer)


async def test_a_model_that_is_not_finite_is_not_published(snapshots: Snapshots, store: Store) -> None:
    with pytest.raises(BadSnapshot, match="not_finite"):
        await snapshots.publish(manifest(), tensors(np.nan), after=None)
    assert await keys(store) == []


async def reason_of_loading(snapshots: Snapshots, version: int = 1) -> str:
    with pytest.raises(BadSnapshot) as caught:
        await snapshots.load("home", MODEL, version)
    return caught.value.reason


async def test_a_version_that_is_not_there_is_missing(snapshots: Snapshots, store: Store) -> None:
    await snapshots.publish(manifest(), tensors(), after=None)
    assert await reason_of_loading(snapshots, 2) == "missing"
    await store.delete(f"{FOLDER}/00000001/tensors.safetensors")
    assert await reason_of_loading(snapshots) == "missing"


async def test_a_cache_that_cannot_be_written_says_nothing_of_the_version(store: Store, tmp_path: Path) -> None:
    await Snapshots(store, None).publish(manifest(), tensors(), after=None)
    (tmp_path / "cache").touch()
    with pytest.raises(Unavailable, match=r"the model cache .*: .*Not a directory"):
        await Snapshots(store, tmp_path / "cache").load("home", MODEL, 1)


async def test_tensors_that_were_changed_in_the_store_are_refused_and_not_cached(
    snapshots: Snapshots, store: Store, tmp_path: Path
) -> None:
    await snapshots.publish(manifest(), tensors(), after=None)
    key = f"{FOLDER}/00000001/tensors.safetensors"
    good = (await store.get(key)).body
    await store.put(key, good[:-1] + b"\x99")
    assert await reason_of_loading(snapshots) == "sha256"
    await store.put(key, good)
    assert (await snapshots.load("home", MODEL, 1)).manifest.version == 1


@pytest.mark.parametrize("text", [b"no json", b"{}", b'{"version": "x"}'])
async def test_a_manifest_that_cannot_be_read_is_refused(snapshots: Snapshots, store: Store, text: bytes) -> None:
    await snapshots.publish(manifest(), tensors(), after=None)
    await store.put(f"{FOLDER}/00000001/manifest.json", text)
    assert await reason_of_loading(snapshots) == "manifest"
    assert await snapshots.list("home", MODEL, 10) == []


async def test_a_manifest_of_another_model_is_refused(snapshots: Snapshots, store: Store) -> None:
    await snapshots.publish(manifest(), tensors(), after=None)
    body = (await store.get(f"{FOLDER}/00000001/manifest.json")).body
    await store.put(f"{FOLDER}/00000001/manifest.json", body.replace(b'"home"', b'"away"'))
    assert await reason_of_loading(snapshots) == "manifest"


async def test_a_field_of_a_later_version_is_ignored(snapshots: Snapshots, store: Store) -> None:
    await snapshots.publish(manifest(), tensors(), after=None)
    key = f"{FOLDER}/00000001/manifest.json"
    body = json.loads((await store.get(key)).body)
    await store.put(key, json.dumps({**body, "later": 1}).encode())
    assert (await snapshots.load("home", MODEL, 1)).manifest.examples == 7


@pytest.mark.parametrize("text", [b"", b"[]", b'{"version": 0}', b'{"version": true}', b'{"version": "1"}'])
async def test_a_pointer_that_cannot_be_read_is_refused(snapshots: Snapshots, store: Store, text: bytes) -> None:
    await store.put(f"{FOLDER}/current.json", text)
    with pytest.raises(BadSnapshot) as caught:
        await snapshots.pointer("home", MODEL)
    assert caught.value.reason == "pointer"


async def test_a_model_that_is_too_large_is_not_even_downloaded(store: Store, tmp_path: Path) -> None:
    small = Snapshots(store, tmp_path / "cache", max_bytes=63)
    await small.publish(manifest(), tensors(), after=None)
    assert await reason_of_loading(small) == "too_large"
    assert not (tmp_path / "cache").exists()


def cached(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache" / "home" / MODEL).iterdir())


async def test_processes_of_a_host_share_one_file(snapshots: Snapshots, store: Store, tmp_path: Path) -> None:
    await snapshots.publish(manifest(), tensors(), after=None)
    neighbour = Snapshots(store, tmp_path / "cache")
    await asyncio.gather(*(each.load("home", MODEL, 1) for each in (snapshots, neighbour, snapshots)))
    (name,) = cached(tmp_path)
    await store.delete(f"{FOLDER}/00000001/tensors.safetensors")
    assert (await neighbour.load("home", MODEL, 1)).manifest.version == 1
    assert name.startswith("00000001-")


async def test_old_cache_files_go_and_what_is_mapped_stays_readable(snapshots: Snapshots, tmp_path: Path) -> None:
    pointer: Pointer | None = None
    first = None
    for number in range(1, CACHED_VERSIONS + 3):
        pointer = await snapshots.publish(manifest(), tensors(number), after=pointer)
        loaded = await snapshots.load("home", MODEL, pointer.version)
        first = first or loaded
    assert len(cached(tmp_path)) == CACHED_VERSIONS
    assert first is not None
    assert first.tensors["moment"][0, 0] == 1.0
    assert (await snapshots.load("home", MODEL, 1)).tensors["moment"][0, 0] == 1.0


async def test_a_removed_version_is_no_longer_listed(snapshots: Snapshots) -> None:
    first = await snapshots.publish(manifest(), tensors(), after=None)
    await snapshots.publish(manifest(), tensors(), after=first)
    await snapshots.remove("home", MODEL, 1)
    assert await snapshots.versions("home", MODEL) == [2]
