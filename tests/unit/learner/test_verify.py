"""The archive, learned from again, gives the tensors of a snapshot byte for byte; or it is said why it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from banditmesh.archive.forget import forget
from banditmesh.runtime.errors import FailedPrecondition
from banditmesh.runtime.store import Store, open_store
from services.learner.archiving.verify import Verified, verify
from tests.support.examples import traffic
from tests.unit.learner.parts import LINUCB, Topic, rig
from tests.unit.learner.test_archiver import Rig as ArchiveRig

BATCH = 16
"""As the learner of `parts` has it."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path.as_uri())


async def verified(store: Store, version: int, *, since: int | None = None, batch: int = BATCH) -> Verified:
    return await verify(store, *LINUCB, version, batch=batch, since=since, told=lambda done, of: None)


async def learned(topic: Topic, store: Store, *, published_at: tuple[int, ...]) -> None:
    """Learn, and publish at these counts of examples, or soon after."""
    async with rig(topic, store) as one:
        for examples in published_at:
            await one.until(examples)
            await one.publisher.publish_all()


def topic_of(n: int, *, at_once: int = 20) -> Topic:
    topic = Topic(3, at_once=at_once)
    topic.append(traffic(n, partitions=3, seed=5, span_s=7200))
    return topic


async def test_every_snapshot_comes_out_again_from_the_prior_and_from_any_snapshot_before(store: Store) -> None:
    topic = topic_of(150)
    await learned(topic, store, published_at=(60, 150))
    await ArchiveRig(topic, store).archive()

    for version in (1, 2):
        found = await verified(store, version)
        assert found.same
        assert (found.since, found.replayed) == (0, found.examples)
    later = await verified(store, 2, since=1)
    assert later.same
    assert later.replayed < 150


async def test_a_rollback_is_the_version_that_it_repeats_and_what_follows_is_learned_from_there(store: Store) -> None:
    topic = topic_of(100)
    async with rig(topic, store) as one:
        await one.until(100)
        await one.publisher.publish_all()
        await one.rollback(one.linucb, 1, relearn=False)
        topic.append(traffic(120, partitions=3, seed=6, span_s=9000)[100:])
        await one.until(101)
        await one.publisher.publish_all()
    await ArchiveRig(topic, store).archive()

    assert (await verified(store, 2)).same
    newest = await verified(store, 3)
    assert newest.same
    assert newest.since == 2


async def test_an_erased_user_is_missing_and_that_is_said(store: Store) -> None:
    topic = topic_of(60)
    await learned(topic, store, published_at=(60,))
    await ArchiveRig(topic, store).archive()
    await forget(store, {"u1"}, 10**15)

    found = await verified(store, 1)

    assert not found.same
    assert (found.examples, found.replayed) == (60, 0)


async def test_an_archive_that_is_not_that_far_yet_is_said(store: Store) -> None:
    topic = topic_of(60, at_once=5)
    await learned(topic, store, published_at=(60,))
    await ArchiveRig(topic, store).archive(5)

    with pytest.raises(FailedPrecondition, match="flush_every"):
        await verified(store, 1)
