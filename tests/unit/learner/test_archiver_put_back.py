"""A store, or a part of it, that is put back as it was: what comes again stands in the archive once."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from banditmesh.archive.compact import compact
from banditmesh.archive.state import States
from banditmesh.runtime.errors import Aborted
from banditmesh.runtime.store import open_store
from tests.support.examples import T0_MS, Given, example
from tests.unit.learner.archiving import DAY, T0, Rig, by_reader, examples_of, in_files, topic_of


async def archived_whole(folder: Path, *cuts: int) -> None:
    """Archive a topic, cut there, on top of what is there, and look for each example once."""
    topic, store = topic_of(100, partitions=1), open_store(folder.as_uri())
    for n in (*cuts, 1_000):
        await Rig(topic, store).archive(n)
    assert in_files(folder) == await by_reader(store) == examples_of(topic)


@pytest.mark.parametrize("cut", [25, 40, 70])
async def test_a_store_that_is_put_back_while_a_range_is_written_has_each_example_once(
    cut: int, tmp_path: Path
) -> None:
    store, past, topic = tmp_path / "store", tmp_path / "past", topic_of(100, partitions=1)
    await Rig(topic, open_store(store.as_uri())).archive(20)
    shutil.copytree(store, past)
    under_it = Rig(topic, open_store(store.as_uri()))
    await under_it.archive(30)
    changes = under_it.archiver._states.put

    async def then_it_is_put_back(*args: Any) -> Any:
        held = await changes(*args)
        if args[2].is_begun:
            shutil.rmtree(store)
            past.rename(store)
        return held

    under_it.archiver._states.put = then_it_is_put_back  # type: ignore[method-assign]
    await under_it.read(60)
    with pytest.raises(Aborted):
        await under_it.archiver.flush()
    assert len(in_files(store)) == 20 + 30, "the range that was begun before is there, and nothing says so"

    await archived_whole(store, cut)


@pytest.mark.parametrize("next_", [0, 20, 45])
@pytest.mark.parametrize("compacted", [False, True])
async def test_a_state_that_is_lost_or_put_back_alone_doubles_nothing(
    next_: int, compacted: bool, tmp_path: Path
) -> None:
    topic, store = topic_of(100, partitions=1), open_store(tmp_path.as_uri())
    (state,) = [tmp_path / "archive" / "state" / "examples" / "00000064-p00000.json"]
    before = b""
    for n in (20, 45, 80):
        await Rig(topic, store).archive(n)
        if n == next_:
            before = state.read_bytes()
    if compacted:
        assert (await compact(store, "examples", T0 + DAY)).folders
    if before:
        state.write_bytes(before)
    else:
        state.unlink()

    await archived_whole(tmp_path, 33, 70)
    if compacted:
        await compact(store, "examples", T0 + 2 * DAY, settled_after=timedelta(0))
        await archived_whole(tmp_path)


async def test_offsets_that_kafka_gives_a_second_time_are_rows_of_their_own(tmp_path: Path) -> None:
    """An election that was not clean has lost records that are archived: the log goes on with others."""
    topic = topic_of(100, partitions=1)
    store = open_store(tmp_path.as_uri())
    await Rig(topic, store).archive(40)
    await Rig(topic, store).archive(100)
    del topic.records[0][30:]
    topic.append(
        Given(0, T0_MS + n, example(source=(0, n), time_ms=T0_MS + n).SerializeToString()) for n in range(1000, 1060)
    )
    opened = Rig(topic, store)
    reader = opened.archiver._open_reader
    opened.archiver._open_reader = lambda begin: reader(lambda logs: {0: [(30, logs[0])]} if begin(logs) else {})

    await opened.archive(55)
    await Rig(topic, store).archive()

    assert sum(in_files(tmp_path).values()) == sum((await by_reader(store)).values()) == 100 + 60
    assert (await States(store, "examples").all())[100, 0].again == 100
