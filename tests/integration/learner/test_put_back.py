"""A store that is put back as it was some seconds ago, as from a backup, while the learner is away or under it."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from banditmesh.archive.reader import read
from banditmesh.runtime.store import Store, open_store
from services.learner.settings import LearnerSettings
from tests.integration.learner.running import published, running, settings
from tests.integration.learner.test_archive import archived
from tests.support.eventually import eventually
from tests.support.examples import T0_MS, ExamplesTopic, traffic

N = 300


def often(folder: Path, topic: ExamplesTopic, store: str) -> LearnerSettings:
    """Settings of a learner that publishes and archives five times a second."""
    config = settings(folder, topic.bootstrap, store, topic.prefix)
    text = config.config.read_text().replace("snapshot_every: 30s", "snapshot_every: 200ms")
    config.config.write_text(f"{text}\narchive: {{flush_every: 200ms}}\n")
    return config


async def rows(store: Store) -> Counter[tuple[int, int]]:
    """Partition and offset of every example in the archive."""
    around, day = datetime.fromtimestamp(T0_MS / 1000, UTC), timedelta(days=1)
    found: Counter[tuple[int, int]] = Counter()
    async for batch in read(store, "home", around - day, around + day):
        names = ("example_partition", "example_offset")
        found.update(zip(*(batch.column(name).to_pylist() for name in names), strict=True))
    return found


@pytest.mark.parametrize("under_it", [False, True], ids=["while it is away", "under it"])
async def test_a_store_that_is_put_back_makes_no_example_count_or_stand_there_twice_or_never(
    topic: ExamplesTopic, tmp_path: Path, under_it: bool
) -> None:
    records = traffic(N, partitions=3, seed=11, span_s=7200)
    store, past, lost = (tmp_path / name for name in ("store", "past", "lost"))
    config = often(tmp_path, topic, store.as_uri())

    def put_back() -> None:
        store.rename(lost)
        past.rename(store)

    await topic.send(records[: N // 2])
    async with running(config) as learner:
        await learner.until_learned(N // 4)
    shutil.copytree(store, past)
    await topic.send(records[N // 2 : -N // 4])
    async with running(config) as learner:
        await learner.until_learned(N // 2 + 1)
        await learner.parts.publisher.publish_all()
        if under_it:
            put_back()
        await topic.send(records[-N // 4 :])
        if under_it:
            async with asyncio.timeout(30):
                await learner.server.stop_requested.wait()
        else:
            model = (await learner.until_learned(N)).model
            await eventually(partial(archived, open_store(store.as_uri()), range(3)))
    if not under_it:
        put_back()

    async with running(config) as learner:
        model = (await learner.until_learned(N)).model
        await eventually(partial(archived, open_store(store.as_uri()), range(3)))
    other = (tmp_path / "undisturbed").as_uri()
    async with running(settings(tmp_path, topic.bootstrap, other, topic.prefix)) as undisturbed:
        await undisturbed.until_learned(N)
    assert (await published(store.as_uri(), model)).body == (await published(other, model)).body
    found = await rows(open_store(store.as_uri()))
    assert len(found) == N
    assert set(found.values()) == {1}
