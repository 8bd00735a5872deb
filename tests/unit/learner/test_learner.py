"""The loop, with a list for a topic and a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from banditmesh.runtime.store import Store, open_store
from banditmesh.runtime.tensorfile import encode
from tests.support.examples import T0_MS, Given, closing, example, traffic
from tests.unit.learner.parts import CATALOG, LINUCB, Rig, Topic, rig


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def given_example(time_ms: int, *, partition: int = 0, source: int = 0, placement: str = "home") -> Given:
    one = example(source=(partition, source), placement=placement)
    return Given(partition, T0_MS + time_ms, one.SerializeToString())


def state(one: Rig) -> tuple[bytes, dict[int, int], dict[int, int], int]:
    shard = one.linucb
    return encode(shard.tensors()), shard.offsets, shard.sources, shard.examples


async def whole(topic: Topic, store: Store, n: int) -> tuple[bytes, dict[int, int], dict[int, int], int]:
    async with rig(topic, store) as one:
        await one.until(n)
        return state(one)


async def test_every_model_of_a_placement_learns_from_all_of_its_examples(store: Store) -> None:
    topic = Topic(2)
    topic.append(traffic(50, partitions=2, seed=1))
    async with rig(topic, store) as one:
        await one.until(50)
        learned = {shard_id: shard.examples for shard_id, shard in one.shards.items() if shard_id.placement == "home"}
        assert learned == {shard_id: 50 for shard_id in CATALOG.models if shard_id.placement == "home"}
        assert one.metric("examples_total", placement="home", model=LINUCB.model) == 50


@pytest.mark.parametrize("seed", range(12))
async def test_restarts_at_random_snapshots_change_no_byte_of_the_model(
    seed: int, store: Store, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    records = traffic(300, partitions=3, seed=seed)
    topic = Topic(3)
    topic.append(records)
    uninterrupted = await whole(topic, open_store((tmp_path / "other").as_uri()), 300)

    piecewise = Topic(3, at_once=int(rng.integers(1, 60)))
    sent = 0
    while sent < len(records):
        sent += int(rng.integers(1, 120))
        piecewise = _extended(piecewise, records[:sent])
        async with rig(piecewise, store) as one:
            for _ in range(int(rng.integers(1, 12))):
                await one.turn()
            if rng.random() < 0.7:  # else: killed before it could publish
                await one.publisher.publish_all()
    async with rig(piecewise, store) as one:
        await one.until(300)
        assert state(one) == uninterrupted


def _extended(topic: Topic, records: list[Given]) -> Topic:
    longer = Topic(topic.partitions, topic.at_once)
    longer.append(records)
    return longer


async def test_a_poison_record_becomes_a_dead_letter_and_learning_goes_on(store: Store) -> None:
    topic = Topic(1)
    topic.append([given_example(0), Given(0, T0_MS + 10, b"\xff\xff"), given_example(20, source=2)])
    topic.append(closing(1, T0_MS + 9000))
    async with rig(topic, store) as one:
        await one.until(2)
        ((record, error),) = one.letters
        assert (record.offset, record.value, error.reason) == (1, b"\xff\xff", "not_a_protobuf")
        assert one.metric("dead_letters_total", reason="not_a_protobuf") == 1


async def test_an_unknown_placement_is_counted_and_no_poison(store: Store) -> None:
    topic = Topic(1)
    topic.append([given_example(0, placement="gone"), given_example(10, source=1, placement="elsewhere")])
    topic.append([given_example(20, source=2), *closing(1, T0_MS + 9000)])
    async with rig(topic, store) as one:
        await one.until(1)
        assert one.letters == []
        assert one.metric("unknown_placement_total") == 1


async def test_a_silent_partition_is_waited_for_until_it_has_been_silent_for_long(store: Store) -> None:
    topic = Topic(2)
    topic.append([given_example(0), *closing(1, T0_MS + 9000)])
    async with rig(topic, store) as one:
        await one.turn()
        await one.clock.advance(59)
        await one.turn()
        await one.turn()
        assert one.linucb.examples == 0
        await one.clock.advance(2)
        await one.until(1)
        assert one.metric("stalled_partitions") == 2  # the other one has been silent as long


async def test_what_a_stalled_partition_brings_late_is_learned_at_once_and_counted(store: Store) -> None:
    topic = Topic(2)
    topic.append([given_example(0), given_example(8000, source=1), *closing(1, T0_MS + 9000)])
    async with rig(topic, store) as one:
        await one.turn()
        await one.clock.advance(61)
        await one.until(2)
        topic.append([given_example(100, partition=1)])
        await one.until(3)
        assert one.metric("out_of_order_total") == 1


async def test_a_partition_whose_broker_says_nothing_is_waited_for(store: Store) -> None:
    topic = Topic(2)
    topic.append([given_example(0), *closing(1, T0_MS + 9000)])
    topic.says_ends = False
    async with rig(topic, store) as one:
        await one.turn()
        await one.clock.advance(1000)
        await one.turn()
        await one.turn()
        assert one.linucb.examples == 0


async def test_after_an_outage_reading_goes_on_where_learning_stands(store: Store) -> None:
    records = traffic(100, partitions=2, seed=4)
    topic = Topic(2)
    topic.append(records[:60])
    async with rig(topic, store) as one:
        await one.turn()
        await one.turn()
        stood, learned = dict(one.linucb.offsets), one.linucb.examples
        assert 0 < learned < 60
        topic.answers = False
        await one.clock.wait_for_sleepers()
        topic.answers = True
        topic.append(records[60:])
        await one.clock.advance(1)
        await one.until(100)
        assert topic.opened_at == [{}, stood]
        assert one.linucb.duplicates == 0
        learned_in_pieces = state(one)
    assert learned_in_pieces == await whole(topic, store, 100)


async def test_a_shard_without_a_snapshot_catches_up_apart_from_the_others(store: Store) -> None:
    topic = Topic(2, at_once=7)
    topic.append(traffic(80, partitions=2, seed=5))
    async with rig(topic, store) as one:
        await one.until(80)
        await one.publisher.publish_all()
        learned = state(one)
    await one.snapshots.remove("home", LINUCB.model, 1)
    await store.delete(f"models/home/{LINUCB.model}/current.json")
    async with rig(topic, store) as one:
        popularity = one.popularity
        stood = dict(popularity.offsets)
        await one.until(80)
        opened = len(topic.opened_at)
        while topic.opened_at[-1] != one.linucb.offsets:
            await one.turn()
        assert topic.opened_at[opened - 2 :] == [stood, {}, one.linucb.offsets]
        assert state(one) == learned
        assert popularity.examples == 80


async def test_while_a_shard_catches_up_the_others_learn_what_comes(store: Store) -> None:
    topic = Topic(2)
    topic.append(traffic(80, partitions=2, seed=5))
    async with rig(topic, store) as one:
        await one.until(80)
        await one.publisher.publish_all()
    await one.snapshots.remove("home", LINUCB.model, 1)
    await store.delete(f"models/home/{LINUCB.model}/current.json")
    topic.slow = True  # who reads old records waits for ever
    later = T0_MS + 500_000
    topic.append([Given(0, later, example(source=(0, 999)).SerializeToString()), *closing(2, later + 9000)])
    async with rig(topic, store) as one:
        popularity = one.popularity
        while popularity.examples < 81:
            await one.turn()
        assert one.linucb.examples == 0


async def test_a_shard_without_news_goes_on_after_a_restart_where_it_had_read(store: Store) -> None:
    topic = Topic(1)
    topic.append([given_example(at, source=at, placement="elsewhere") for at in range(50)])
    topic.append(closing(1, T0_MS + 9000))
    async with rig(topic, store) as one:
        while one.linucb.offsets.get(0, 0) < 50:
            await one.turn()
        await one.publisher.publish_all()
        stood = dict(one.linucb.offsets)
        assert await one.snapshots.pointer("home", LINUCB.model) is None
    async with rig(topic, store) as one:
        assert one.linucb.offsets == stood
        await one.turn()
        assert topic.opened_at[-1] == stood


async def test_a_position_of_an_older_version_is_not_used(store: Store) -> None:
    topic = Topic(1)
    topic.append([given_example(0), *closing(1, T0_MS + 9000)])
    async with rig(topic, store) as one:
        await one.until(1)
        await one.publisher.publish_all()
        await one.publisher.publish_all()  # nothing new: only the position
        topic.append([given_example(10_000, source=5), *closing(1, T0_MS + 19_000)])
        await one.until(2)
        await one.publisher.publish_all(positions=False)
        stood = dict(one.linucb.offsets)
    async with rig(topic, store, run=False) as one:
        assert (one.linucb.examples, one.linucb.offsets) == (2, stood)


def of_log(log: int, n: int, time_ms: int) -> list[Given]:
    """Examples of the first ``n`` impressions of a log."""
    found: list[Given] = []
    for at in range(n):
        one = example(source=(0, at))
        one.source.log = log
        found.append(Given(0, T0_MS + time_ms + at, one.SerializeToString()))
    return found


async def test_a_topic_that_was_made_anew_is_read_from_its_beginning_and_the_model_stays(store: Store) -> None:
    topic = Topic(1)
    topic.append([*of_log(98, 5, 0), *closing(1, T0_MS + 9000)])
    async with rig(topic, store) as one:
        await one.until(5)
        await one.publisher.publish_all()
    anew = Topic(1, generation=2)
    anew.append([*of_log(99, 3, 20_000), *closing(1, T0_MS + 29_000)])
    async with rig(anew, store) as one:
        await one.until(8)
        assert anew.opened_at[0] == {0: 0}
        assert one.linucb.offsets == {0: 3}


async def test_what_a_model_refuses_is_a_dead_letter_and_the_others_learn_it(store: Store) -> None:
    topic = Topic(1)
    rewards = [1.0, 2.0, 0.0]
    topic.append(
        Given(0, T0_MS + at, example(source=(0, at), reward=reward, placement="strict").SerializeToString())
        for at, reward in enumerate(rewards)
    )
    topic.append(closing(1, T0_MS + 9000))
    async with rig(topic, store) as one:
        strict = {
            shard.id.model.partition("-")[0]: shard for shard in one.shards.values() if shard.id.placement == "strict"
        }
        while strict["popularity"].examples < 3:
            await one.turn()
        assert strict["linear"].examples == 2
        ((record, error),) = one.letters
        assert (record.offset, error.reason) == (1, "refused_by_policy")
        assert "strict/linear" in error.detail
        assert "is not in [0, 1]" in error.detail
        assert one.metric("dead_letters_total", reason="refused_by_policy") == 1


async def test_how_far_learning_is_is_reported(store: Store) -> None:
    topic = Topic(2)
    topic.append(traffic(50, partitions=2, seed=1))
    async with rig(topic, store) as one:
        await one.until(50)
        await one.turn()
        assert topic.reported == one.linucb.offsets
