"""What every object store promises, whichever URL it was opened by."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from banditmesh.local.s3 import S3
from banditmesh.runtime.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from banditmesh.runtime.store import Store, open_store
from tests.support.servers import BUCKET

KEY = "models/home/linucb-1a2b3c4d/current.json"


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    s3: S3 = request.getfixturevalue("s3")
    return s3.url(BUCKET, uuid.uuid4().hex)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = open_store(url)
    yield opened
    await opened.close()


@pytest.fixture
async def rival(url: str) -> AsyncIterator[Store]:
    """A second writer on the same store."""
    opened = open_store(url)
    yield opened
    await opened.close()


async def keys(store: Store, prefix: str = "") -> list[str]:
    return [key async for key in store.list(prefix)]


async def test_a_new_object_is_read_back_with_its_etag(store: Store) -> None:
    etag = await store.put_new(KEY, b"\x00binary\xff")
    assert await store.get(KEY) == (b"\x00binary\xff", etag)


async def test_an_empty_object_is_an_object(store: Store) -> None:
    await store.put_new(KEY, b"")
    assert (await store.get(KEY)).body == b""


async def test_creating_what_exists_is_refused_and_changes_nothing(store: Store) -> None:
    await store.put_new(KEY, b"first")
    with pytest.raises(AlreadyExists) as refused:
        await store.put_new(KEY, b"second")
    assert refused.value.value == KEY
    assert (await store.get(KEY)).body == b"first"


async def test_of_two_writers_that_create_exactly_one_wins(store: Store, rival: Store) -> None:
    for version in range(10):
        key = f"models/{version:08d}/manifest.json"
        outcomes = await asyncio.gather(
            store.put_new(key, b"mine"), rival.put_new(key, b"theirs"), return_exceptions=True
        )
        won = [not isinstance(outcome, AlreadyExists) for outcome in outcomes]
        assert sorted(won) == [False, True], outcomes
        assert (await store.get(key)).body == (b"mine" if won[0] else b"theirs")


async def test_replacing_with_the_current_etag_gives_the_next_one(store: Store) -> None:
    first = await store.put_new(KEY, b"1")
    second = await store.replace(KEY, b"2", first)
    assert second != first
    assert await store.get(KEY) == (b"2", second)
    await store.replace(KEY, b"3", second)


async def test_replacing_with_a_stale_etag_is_aborted_and_changes_nothing(store: Store) -> None:
    stale = await store.put_new(KEY, b"1")
    await store.replace(KEY, b"2", stale)
    with pytest.raises(Aborted):
        await store.replace(KEY, b"3", stale)
    assert (await store.get(KEY)).body == b"2"


async def test_replacing_what_is_gone_is_aborted(store: Store) -> None:
    etag = await store.put_new(KEY, b"1")
    await store.delete(KEY)
    with pytest.raises(Aborted):
        await store.replace(KEY, b"2", etag)
    assert await keys(store) == []


async def test_of_two_writers_that_replace_exactly_one_wins(store: Store, rival: Store) -> None:
    etag = await store.put_new(KEY, b"0")
    for round_ in range(10):
        mine, theirs = b"mine %d" % round_, b"theirs %d" % round_
        outcomes = await asyncio.gather(
            store.replace(KEY, mine, etag), rival.replace(KEY, theirs, etag), return_exceptions=True
        )
        won = [not isinstance(outcome, Aborted) for outcome in outcomes]
        assert sorted(won) == [False, True], outcomes
        body, etag = await store.get(KEY)
        assert body == (mine if won[0] else theirs)


async def test_put_overwrites_whatever_is_there(store: Store) -> None:
    await store.put(KEY, b"1")
    etag = await store.put(KEY, b"2")
    assert await store.get(KEY) == (b"2", etag)


async def test_reading_what_is_not_there_says_which_key(store: Store, tmp_path: Path) -> None:
    for attempt in (store.get(KEY), store.get_if_changed(KEY, '"0"'), store.download(KEY, tmp_path / "x")):
        with pytest.raises(NotFound) as missing:
            await attempt
        assert missing.value.value == KEY
    assert not (tmp_path / "x").exists()


async def test_a_reader_gets_only_what_has_changed(store: Store) -> None:
    etag = await store.put_new(KEY, b"1")
    assert await store.get_if_changed(KEY, etag) is None
    newer = await store.replace(KEY, b"2", etag)
    assert await store.get_if_changed(KEY, etag) == (b"2", newer)


async def test_a_file_goes_up_and_comes_down_the_same(store: Store, tmp_path: Path) -> None:
    original = tmp_path / "tensors.safetensors"
    original.write_bytes(bytes(range(256)) * 12_000)  # 3 MB: more than one chunk
    uploaded = await store.upload_new("models/tensors", original)
    copy = tmp_path / "cache" / "tensors"
    assert await store.download("models/tensors", copy) == uploaded
    assert copy.read_bytes() == original.read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == ["tensors"]


async def test_a_file_is_not_uploaded_over_an_object(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"second")
    await store.put_new(KEY, b"first")
    with pytest.raises(AlreadyExists):
        await store.upload_new(KEY, tmp_path / "file")
    assert (await store.get(KEY)).body == b"first"


async def test_a_download_replaces_the_file_that_was_there(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old and longer")
    await store.put_new(KEY, b"new")
    await store.download(KEY, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"


async def test_keys_are_listed_in_order_by_any_prefix(store: Store) -> None:
    for key in ("models/b/2", "models/a/10", "models/a/9", "models/ab", "other"):
        await store.put_new(key, b"x")
    assert await keys(store) == ["models/a/10", "models/a/9", "models/ab", "models/b/2", "other"]
    assert await keys(store, "models/a") == ["models/a/10", "models/a/9", "models/ab"]
    assert await keys(store, "models/a/") == ["models/a/10", "models/a/9"]
    assert await keys(store, "nothing/") == []


async def test_deleting_twice_is_deleting_once(store: Store) -> None:
    await store.put_new(KEY, b"1")
    await store.delete(KEY)
    await store.delete(KEY)
    assert await keys(store) == []
    await store.put_new(KEY, b"again")


@pytest.mark.parametrize(
    "key", ["", "/absolute", "../up", "a/../b", "a//b", "a/", ".lock", "a\nb", "a\\b", "k" * 513, "a/./b"]
)
async def test_a_key_that_could_leave_the_store_is_refused(store: Store, key: str) -> None:
    for attempt in (store.get(key), store.put(key, b""), store.put_new(key, b""), store.delete(key)):
        with pytest.raises(InvalidArgument):
            await attempt


async def test_the_store_answers_a_ping_and_names_its_place(store: Store, url: str) -> None:
    await store.ping()
    assert url.partition("?")[0] in store.location
