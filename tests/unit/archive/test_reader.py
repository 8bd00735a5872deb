"""Reading the archive: each row once, and none of what is not complete."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import pyarrow as pa
import pytest

from banditmesh.archive.index import Index, get_index, put_index
from banditmesh.archive.layout import Folder, Range, folder_of, range_of
from banditmesh.archive.reader import folders, read
from banditmesh.archive.schema import EXAMPLES
from banditmesh.archive.state import Gap, Mark, State, States, complete_until
from banditmesh.runtime.errors import Aborted, InvalidArgument
from tests.support.archive import LOG, NOON, as_file, offsets_of, put, rows, store_in

HOME = Folder("examples", "home", NOON)
HOUR = timedelta(hours=1)
P = ParamSpec("P")
T = TypeVar("T")


class HeldThreads(ThreadPoolExecutor):
    """Threads that can be made to wait in the middle of what they are given."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self.busy, self.go_on = asyncio.Event(), threading.Event()
        self.go_on.set()

    def hold(self) -> None:
        self.busy.clear()
        self.go_on.clear()

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        loop = asyncio.get_running_loop()

        def held() -> T:
            loop.call_soon_threadsafe(self.busy.set)
            self.go_on.wait()
            return work(*args, **kwargs)

        return super().submit(held)


async def all_of(batches: AsyncIterator[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return [batch async for batch in batches]


def test_a_folder_and_a_range_are_read_back_out_of_their_names() -> None:
    folder = Folder("decisions", "a b/ü", NOON.replace(hour=3))
    part = Range(LOG, 7, 5, 12)

    key = folder.prefix + part.file_name("decisions")

    assert key.startswith("archive/decisions/placement=a%20b%2F%C3%BC/dt=2026-11-29/hour=03/decisions-a1b2c3d4-p00007-")
    assert folder_of(key) == folder
    assert range_of(key.rpartition("/")[2]) == part


async def test_rows_of_a_span_of_time_come_in_the_order_of_the_hours(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    await put(store, HOME, rows(0, 10))
    await put(store, replace(HOME, hour=NOON + HOUR), rows(10, 20, at=NOON + HOUR))
    await put(store, replace(HOME, placement="other"), rows(0, 10, partition=1))

    found = await all_of(read(store, "home", NOON + timedelta(seconds=4), NOON + HOUR + timedelta(seconds=12)))

    assert offsets_of(found) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert found[0].schema == EXAMPLES


async def test_a_range_that_is_not_complete_is_left_out(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    await put(store, HOME, rows(0, 5))
    await put(store, HOME, rows(5, 9), complete=False)

    assert offsets_of(await all_of(read(store, "home", NOON, NOON + HOUR))) == [0, 1, 2, 3, 4]


async def test_a_compacted_file_counts_instead_of_what_it_replaces_and_not_before(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    names = [await put(store, HOME, rows(0, 5)), await put(store, HOME, rows(5, 9))]
    await store.put_new(HOME.prefix + "compact-1.parquet", as_file(rows(0, 9)))

    assert (await folders(store, "home", NOON, NOON + HOUR))[HOME] == names

    await put_index(store, HOME, Index(1, {"compact-1.parquet": names}), await get_index(store, HOME))

    assert (await folders(store, "home", NOON, NOON + HOUR))[HOME] == ["compact-1.parquet"]


async def test_a_file_that_is_replaced_while_it_is_read_is_found_in_what_replaced_it(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    names = [await put(store, HOME, rows(0, 5)), await put(store, HOME, rows(5, 9))]
    reading = read(store, "home", NOON, NOON + HOUR)
    first = await anext(reading)

    await store.put_new(HOME.prefix + "compact-1.parquet", as_file(rows(0, 9)))
    held = await put_index(store, HOME, Index(1, {"compact-1.parquet": names}), await get_index(store, HOME))
    await store.put_new(HOME.prefix + "compact-2.parquet", as_file(rows(0, 9)))
    again = {**held.index.compacted, "compact-2.parquet": ["compact-1.parquet"]}
    await put_index(store, HOME, Index(2, again), held)
    for name in (*names, "compact-1.parquet"):
        await store.delete(HOME.prefix + name)

    assert offsets_of([first, *[batch async for batch in reading]]) == list(range(9))


async def test_files_of_an_older_and_of_a_newer_schema_are_read_with_the_columns_of_this_one(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    older = rows(0, 3).drop_columns(["source_log", "target"])
    newer = rows(3, 6).append_column("colour", pa.array(["red"] * 3))
    await put(store, HOME, older)
    await put(store, HOME, newer)

    found = await all_of(read(store, "home", NOON, NOON + HOUR))

    assert [batch.schema for batch in found] == [EXAMPLES, EXAMPLES]
    assert found[0].column("source_log").null_count == 3
    assert offsets_of(found) == [0, 1, 2, 3, 4, 5]


async def test_chosen_columns_alone_are_read(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    await put(store, HOME, rows(0, 3))

    (found,) = await all_of(read(store, "home", NOON, NOON + HOUR, columns=["user", "reward"]))

    assert found.to_pydict() == {"user": ["u0", "u1", "u2"], "reward": [1.0, 0.5, 1.0]}


async def test_who_is_cancelled_closes_no_file_that_a_thread_still_reads(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    await put(store, HOME, rows(0, 3))
    await put(store, HOME, rows(3, 6))
    threads = HeldThreads()
    asyncio.get_running_loop().set_default_executor(threads)
    reading = read(store, "home", NOON, NOON + HOUR)
    await anext(reading)

    threads.hold()
    task = asyncio.ensure_future(anext(reading))
    await threads.busy.wait()
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    went_on = task.done()
    threads.go_on.set()

    assert not went_on
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_without_a_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="start"):
        await anext(read(store_in(tmp_path), "home", datetime(2026, 11, 29), NOON))


async def test_the_second_of_two_who_change_a_state_learns_that_it_is_the_second(tmp_path: Path) -> None:
    states = States(store_in(tmp_path), "examples")
    first = await states.put(LOG, 0, State().begin(5, Mark(1)), None)
    await states.put(LOG, 0, first.state.complete(), first)

    with pytest.raises(Aborted):
        await states.put(LOG, 0, first.state.complete(), first)
    with pytest.raises(Aborted):
        await states.put(LOG, 0, State(), None)


async def test_the_archive_is_complete_until_the_time_of_the_slowest_partition_of_the_newest_log(
    tmp_path: Path,
) -> None:
    store = store_in(tmp_path)
    states = States(store, "examples")
    await states.put(LOG, 0, State(5, 9, mark=Mark(2000), begun_mark=Mark(9000)), None)
    await states.put(LOG, 1, State(5, 5, mark=Mark(3000)), None)
    await states.put(LOG + 1, 1, State(5, 5, mark=Mark(1000), gaps=(Gap(0, 2, 1),)), None)

    assert (await complete_until(store)).timestamp() == 2
    assert (await complete_until(store, logs=frozenset({LOG + 1}))).timestamp() == 1
