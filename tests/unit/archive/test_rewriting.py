"""Compacting, erasing and expiring: no row is lost, doubled or brought back, whenever it is stopped."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from banditmesh.archive.compact import compact
from banditmesh.archive.expire import expire
from banditmesh.archive.forget import forget
from banditmesh.archive.forgotten import forgotten, without
from banditmesh.archive.layout import Folder
from banditmesh.archive.pseudonym import pseudonyms
from banditmesh.archive.reader import read
from banditmesh.runtime.errors import ConfigurationError, PermissionDenied
from banditmesh.runtime.store import Store
from tests.support.archive import NOON, as_file, offsets_of, put, rows, store_in

HOME = Folder("examples", "home", NOON)
HOUR = timedelta(hours=1)
LATER = NOON + timedelta(hours=4)
ALL = set(range(12))


async def by_reader(store: Store) -> list[int]:
    return sorted(offsets_of([each async for each in read(store, "home", NOON, NOON + HOUR)]))


def in_files(folder: Path) -> list[int]:
    """What anybody sees who reads the folder as it is."""
    found = ds.dataset([str(path) for path in (folder / HOME.prefix).glob("*.parquet")]).to_table()
    return sorted(found.column("example_offset").to_pylist())


class Killed(BaseException):
    """The process has ended here."""


class Mortal:
    """A store whose process dies at the n-th change, before it or after it."""

    def __init__(self, store: Store, dies_at: int, *, after: bool) -> None:
        self._store, self._left, self._after = store, dies_at, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("put", "put_new", "replace", "upload_new", "delete"):
            return found

        async def change(*args: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            done = await found(*args)
            if self._left == 0:
                raise Killed
            return done

        return change


async def small_files(folder: Path) -> Store:
    store = store_in(folder)
    for first in range(0, 12, 3):
        await put(store, HOME, rows(first, first + 3))
    return store


async def test_small_files_become_one_with_the_same_rows(tmp_path: Path) -> None:
    store = await small_files(tmp_path)

    done = await compact(store, "examples", LATER)

    counts = {"folders": 1, "files_before": 4, "files_after": 1, "rows": 12}
    assert vars(done) == {**counts, "contended": 0, "unsettled": 0, "broken": []}
    assert await by_reader(store) == in_files(tmp_path) == sorted(ALL)
    assert len(list((tmp_path / HOME.prefix).glob("*.parquet"))) == 1


class NeverDeletes:
    """A store that refuses the right to delete."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def delete(self, key: str) -> None:
        raise PermissionDenied("refuses DeleteObject", field="key", value=key)


class Slow:
    """A store whose downloads take until they are let go, whoever is cancelled meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.began, self.goes_on = asyncio.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def download(self, key: str, path: Path) -> str:
        self.began.set()
        await asyncio.to_thread(self.goes_on.wait)
        return await self._store.download(key, path)


@pytest.mark.parametrize("reads", [False, True], ids=["compact", "read"])
async def test_who_is_cancelled_leaves_no_folder_that_a_download_still_fills(
    reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    store = Slow(await small_files(tmp_path))
    work = by_reader(store) if reads else compact(store, "examples", LATER)  # type: ignore[arg-type]
    task = asyncio.ensure_future(work)
    await store.began.wait()
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    waits = not task.done()
    store.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waits
    assert list((tmp_path / "temporary").iterdir()) == []


async def test_who_may_not_delete_leaves_no_row_twice(tmp_path: Path) -> None:
    store = await small_files(tmp_path)

    with pytest.raises(PermissionDenied):
        await compact(NeverDeletes(store), "examples", LATER)  # type: ignore[arg-type]

    assert in_files(tmp_path) == sorted(ALL)
    await compact(store, "examples", LATER)
    assert await by_reader(store) == in_files(tmp_path) == sorted(ALL)


async def test_an_hour_that_has_not_settled_and_a_range_that_is_not_complete_are_left_alone(tmp_path: Path) -> None:
    store = await small_files(tmp_path)
    unfinished = await put(store, HOME, rows(12, 15), complete=False)

    assert (await compact(store, "examples", NOON + 2 * HOUR)).folders == 0
    await compact(store, "examples", LATER)

    assert (tmp_path / HOME.prefix / unfinished).exists()
    assert await by_reader(store) == sorted(ALL)


async def test_files_that_are_large_together_become_several(tmp_path: Path) -> None:
    store = await small_files(tmp_path)
    size = max(path.stat().st_size for path in (tmp_path / HOME.prefix).glob("*.parquet"))

    done = await compact(store, "examples", LATER, target_bytes=2 * size + 100)

    assert done.files_after == 2
    assert await by_reader(store) == in_files(tmp_path) == sorted(ALL)


async def test_files_of_several_schemas_are_compacted_into_todays(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    await put(store, HOME, rows(0, 3).drop_columns(["source_log"]))
    await put(store, HOME, rows(3, 6))

    await compact(store, "examples", LATER)

    found = pa.Table.from_batches([each async for each in read(store, "home", NOON, NOON + HOUR)])
    assert found.column("source_log").to_pylist() == [None] * 3 + [1] * 3


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_death_at_any_change_of_a_compaction_shows_a_reader_nothing_and_is_mended(
    after: bool, tmp_path: Path
) -> None:
    for dies_at in range(1, 50):
        folder = tmp_path / str(dies_at)
        store = await small_files(folder)
        try:
            await compact(Mortal(store, dies_at, after=after), "examples", LATER)  # type: ignore[arg-type]
        except Killed:
            assert await by_reader(store) == sorted(ALL), f"died at change {dies_at}"
            await compact(store, "examples", LATER)
            await compact(store, "examples", LATER)  # what a death left is tidied up at the latest by the next one
            assert await by_reader(store) == in_files(folder) == sorted(ALL), f"died at change {dies_at}"
        else:
            assert dies_at > 6
            return
    raise AssertionError("it never came to its end")


async def test_of_two_that_compact_an_hour_at_once_one_does(tmp_path: Path) -> None:
    store = await small_files(tmp_path)

    class SlowToNameIt(Mortal):
        def __getattr__(self, name: str) -> Any:
            found = getattr(self._store, name)
            if name != "upload_new":
                return found

            async def upload(*args: Any) -> Any:
                done = await found(*args)
                await compact(store, "examples", LATER)
                return done

            return upload

    await compact(SlowToNameIt(store, 0, after=False), "examples", LATER)  # type: ignore[arg-type]

    assert await by_reader(store) == in_files(tmp_path) == sorted(ALL)


async def test_a_forgotten_user_is_in_no_file_and_everybody_else_is(tmp_path: Path) -> None:
    store = await small_files(tmp_path)
    names = sorted(path.name for path in (tmp_path / HOME.prefix).glob("*.parquet"))

    done = await forget(store, {"u7"}, 10**15)

    assert vars(done) == {"files": 1, "rows": 1, "broken": set()}
    assert await by_reader(store) == in_files(tmp_path) == sorted(ALL - {7})
    assert sorted(path.name for path in (tmp_path / HOME.prefix).glob("*.parquet")) == names
    assert vars(await forget(store, {"u7"}, 10**15)) == {"files": 0, "rows": 0, "broken": set()}


async def test_a_user_is_erased_from_what_is_not_complete_and_from_what_nothing_names(tmp_path: Path) -> None:
    store = await small_files(tmp_path)
    await put(store, HOME, rows(12, 15, user="u7-"), complete=False)
    await store.put_new(HOME.prefix + f"compact-{0:032x}.parquet", as_file(rows(6, 9)))

    done = await forget(store, {"u7", "u7-13"}, 10**15)

    assert done.rows == 3
    assert 7 not in in_files(tmp_path)
    assert 13 not in in_files(tmp_path)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_death_at_any_change_of_an_erasure_is_mended_by_the_next(after: bool, tmp_path: Path) -> None:
    users = {"u1", "u7", "u10"}
    for dies_at in range(1, 50):
        store = await small_files(tmp_path / str(dies_at))
        try:
            await forget(Mortal(store, dies_at, after=after), users, 10**15)  # type: ignore[arg-type]
        except Killed:
            assert set(await by_reader(store)) >= ALL - {1, 7, 10}
            await forget(store, users, 10**15)
            assert await by_reader(store) == sorted(ALL - {1, 7, 10})
        else:
            assert dies_at > 6
            return
    raise AssertionError("it never came to its end")


async def test_a_compaction_that_has_read_a_file_before_it_was_rewritten_does_not_bring_the_user_back(
    tmp_path: Path,
) -> None:
    store = await small_files(tmp_path)

    class ErasedMeanwhile(Mortal):
        def __getattr__(self, name: str) -> Any:
            found = getattr(self._store, name)
            if name != "upload_new":
                return found

            async def upload(*args: Any) -> Any:
                await forget(store, {"u7"}, 10**15)  # the inputs are read, the compacted file is not there yet
                return await found(*args)

            return upload

    await compact(ErasedMeanwhile(store, 0, after=False), "examples", LATER)  # type: ignore[arg-type]

    assert 7 not in in_files(tmp_path)
    assert await by_reader(store) == sorted(ALL - {7})


async def test_hours_older_than_to_be_kept_are_deleted_and_others_are_not(tmp_path: Path) -> None:
    store = await small_files(tmp_path)
    await compact(store, "examples", LATER)
    await put(store, replace(HOME, hour=NOON + HOUR), rows(20, 23, at=NOON + HOUR))

    done = await expire(store, timedelta(days=1), NOON + timedelta(days=1, hours=1))

    assert vars(done) == {"folders": 1, "files": 1}
    assert not list((tmp_path / HOME.prefix).glob("*"))
    found = [each async for each in read(store, "home", NOON, NOON + 2 * HOUR)]
    assert offsets_of(found) == [20, 21, 22]


async def test_a_note_of_a_forgotten_user_goes_when_no_topic_remembers_so_far_back(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    noon_ms = int(NOON.timestamp() * 1000)
    await forget(store, {"u7"}, noon_ms)
    table = pa.Table.from_batches([rows(0, 12)])

    assert len(without(table, await forgotten(store), "examples")) == 12  # offset 7 was shown after noon
    await forget(store, {"u7"}, noon_ms + 7000)
    assert len(without(table, await forgotten(store), "examples")) == 11
    await expire(store, timedelta(days=1), NOON + timedelta(days=91))
    assert not await forgotten(store)


def test_a_pseudonym_is_the_same_for_the_same_user_and_key_alone() -> None:
    one, other = pseudonyms("00" * 16), pseudonyms("01" * 16)

    assert one("u1") == one("u1")
    assert len({one("u1"), one("u2"), other("u1")}) == 3
    with pytest.raises(ConfigurationError, match="BANDITMESH_ARCHIVE_KEY"):
        pseudonyms("secret")
