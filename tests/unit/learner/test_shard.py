"""A shard: what it learns, what it leaves out, and that it goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from banditmesh.bandits import registry
from banditmesh.bandits.batch import Examples
from banditmesh.bandits.policy import Tensors
from banditmesh.bandits.uniform_random import UniformRandom
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.snapshots import BadSnapshot, Snapshot
from banditmesh.runtime.tensorfile import encode
from services.learner.catalog import ModelSpec, ShardId
from services.learner.examples import Columns, columns, received
from services.learner.shard import LearningFailed, Shard
from tests.support.examples import example, traffic

SPEC = ModelSpec("linucb", registry.policy_params("linucb", {"dimension": 4}).model_dump(mode="json"))
Row = tuple[int, int, events_pb2.Example]


def columns_of(some: Sequence[Row]) -> Columns:
    return columns([(partition, offset, received(one)) for partition, offset, one in some])


def shard(*, batch: int = 1024) -> Shard:
    return Shard(ShardId("home", "linucb-0000"), SPEC, batch=batch)


def rows(n: int, seed: int = 1) -> list[Row]:
    """(partition, offset, example) of ``n`` examples over two partitions."""
    offsets = [0, 0]
    found: list[Row] = []
    for given_record in traffic(n, partitions=2, seed=seed)[:n]:
        parsed = events_pb2.Example.FromString(given_record.value)
        found.append((given_record.partition, offsets[given_record.partition], parsed))
        offsets[given_record.partition] += 1
    return found


def learn(one: Shard, some: Sequence[Row]) -> int:
    """Learn rows as one cut."""
    n = one.learn(columns_of(some)).applied
    ends: dict[int, int] = {}
    for partition, offset, _ in some:
        ends[partition] = offset + 1
    one.advance(ends, 0)
    return n


def snapshot(one: Shard) -> Snapshot:
    return Snapshot(replace(one.manifest(0), version=1), one.tensors())


def test_an_example_whose_source_was_applied_is_a_duplicate() -> None:
    one = shard()
    assert learn(one, [(0, 0, example(source=(5, 10))), (0, 1, example(source=(5, 11)))]) == 2
    assert (
        learn(one, [(0, 2, example(source=(5, 11))), (0, 3, example(source=(5, 3))), (0, 4, example(source=(6, 3)))])
        == 1
    )
    assert (one.examples, one.duplicates) == (3, 2)
    assert one.sources == {5: 11, 6: 3}


def test_a_duplicate_within_one_batch_is_learned_once() -> None:
    one = shard()
    assert learn(one, [(0, 0, example(source=(5, 10))), (0, 1, example(source=(5, 10)))]) == 1


def test_what_lies_before_a_shard_s_offsets_is_passed_over_and_no_duplicate() -> None:
    one = shard()
    learn(one, rows(20))
    before = encode(one.tensors())
    assert learn(one, rows(20)) == 0
    assert one.duplicates == 0
    assert encode(one.tensors()) == before


def test_a_shard_that_is_ahead_does_not_go_back() -> None:
    one = shard()
    one.advance({0: 10, 1: 20}, 5000)
    one.advance({0: 7, 1: 25}, 3000)
    assert (one.offsets, one.watermark_ms) == ({0: 10, 1: 25}, 5000)


@given(st.integers(0, 40), st.integers(1, 50))
def test_a_restored_shard_becomes_what_it_would_have_become(at: int, batch: int) -> None:
    given_rows = rows(40)
    uninterrupted = shard(batch=batch)
    learn(uninterrupted, given_rows[:at])
    restored = shard(batch=batch)
    restored.restore(snapshot(uninterrupted))
    learn(uninterrupted, given_rows[at:])
    learn(restored, given_rows[at:])
    assert encode(restored.tensors()) == encode(uninterrupted.tensors())
    assert restored.manifest(0) == uninterrupted.manifest(0)


def test_a_shard_can_take_a_model_back_without_going_back_itself() -> None:
    one = shard()
    learn(one, rows(40)[:10])
    older = snapshot(one)
    learn(one, rows(40))
    now = one.manifest(0)
    one.restore(older, after=now)
    assert (one.examples, one.offsets, one.sources) == (10, now.offsets, now.sources)


def test_learning_that_stops_half_way_leaves_nothing_to_publish() -> None:
    one = shard()
    one.learn(columns_of(rows(5)))
    with pytest.raises(RuntimeError, match="must not be published"):
        one.manifest(0)


def test_a_snapshot_with_other_parameters_is_refused() -> None:
    one = shard()
    learn(one, rows(5))
    found = snapshot(one)
    other = Snapshot(replace(found.manifest, params={**SPEC.params, "ridge": 7.0}), found.tensors)
    with pytest.raises(BadSnapshot, match=r"params: version 1 is .*7\.0") as caught:
        shard().restore(other)
    assert caught.value.reason == "params"


def test_a_snapshot_that_lacks_a_tensor_is_refused_and_changes_nothing() -> None:
    one = shard()
    learn(one, rows(5))
    found = snapshot(one)
    victim = shard()
    tensors = {name: array for name, array in found.tensors.items() if name != "moment"}
    with pytest.raises(BadSnapshot, match="moment") as caught:
        victim.restore(Snapshot(found.manifest, tensors))
    assert caught.value.reason == "tensors"
    assert victim.examples == 0


def test_read_only_tensors_can_be_learned_upon() -> None:
    one = shard()
    learn(one, rows(5))
    tensors = {name: np.array(array) for name, array in one.tensors().items()}
    for array in tensors.values():
        array.flags.writeable = False
    restored = shard()
    restored.restore(Snapshot(replace(one.manifest(0), version=1), tensors))
    learn(restored, rows(9))
    assert restored.examples == 9


# --- examples that a policy does not take ---

LOGIT = ModelSpec("linear", registry.policy_params("linear", {"link": "logit"}).model_dump(mode="json"))


def mixed(*rewards: float) -> list[Row]:
    """Examples with these rewards, one after the other."""
    return [(0, at, example(source=(0, at), reward=reward, ids=(at,))) for at, reward in enumerate(rewards)]


def test_what_a_policy_refuses_is_found_and_the_rest_is_learned() -> None:
    one = Shard(ShardId("home", "linear-0000"), LOGIT, batch=64)
    rewards = [1.0, 0.0, 0.5, 1.0] * 8
    rewards[5], rewards[20] = 2.0, -1.0
    learned = one.learn(columns_of(mixed(*rewards)))
    assert learned.applied == one.examples == 30
    assert [row for row, _ in learned.refused] == [5, 20]
    assert "is not in [0, 1]" in learned.refused[0][1]
    without = Shard(ShardId("home", "linear-0000"), LOGIT, batch=64)
    without.learn(columns_of([row for row in mixed(*rewards) if row[1] not in (5, 20)]))
    assert encode(one.tensors()) == encode(without.tensors())


class Fragile(UniformRandom):
    """Ends in the middle of learning from an example with a reward of 7, half changed."""

    learned = 0.0

    def learn(self, examples: Examples) -> None:
        for reward in examples.rewards.tolist():
            self.learned += reward
            if reward == 7:
                raise ZeroDivisionError("7")

    def tensors(self) -> Tensors:
        return {"learned": np.array([self.learned])}

    @classmethod
    def from_tensors(cls, params: object, tensors: Mapping[str, NDArray[Any]]) -> Fragile:
        one = cls(None)
        one.learned = float(tensors["learned"][0])
        return one


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Shard:
    monkeypatch.setitem(registry.POLICIES, "random", Fragile)
    return Shard(ShardId("home", "random-0000"), ModelSpec("random", {}), batch=4)


def test_a_policy_that_breaks_names_the_examples_and_with_these_as_suspects_finds_the_one(fragile: Shard) -> None:
    given_rows = mixed(1, 1, 1, 1, 2, 7, 2, 2, 3)
    with pytest.raises(LearningFailed) as failure:
        fragile.learn(columns_of(given_rows))
    assert failure.value.rows == {(0, 4), (0, 5), (0, 6), (0, 7)}
    fragile.reset()
    fragile.suspects = failure.value.rows
    learned = fragile.learn(columns_of(given_rows))
    assert (learned.applied, [row for row, _ in learned.refused]) == (8, [5])
    assert fragile.tensors()["learned"].tolist() == [13.0]


# --- another log ---


def from_log(log: int, *offsets: int) -> list[Row]:
    """Examples of impressions of this log, at these offsets."""
    found: list[Row] = []
    for at, offset in enumerate(offsets):
        one = example(source=(0, offset))
        one.source.log = log
        found.append((0, 100 * log + at, one))
    return found


def test_impressions_of_another_log_are_no_duplicates_whatever_their_offsets() -> None:
    one = shard()
    assert learn(one, from_log(0, 5, 6)) == 2  # of a release that did not say which log
    assert learn(one, from_log(7, 6, 7)) == 1
    assert learn(one, from_log(8, 0, 1, 1)) == 2
    assert (one.sources, one.source_logs) == ({0: 1}, {0: 8})
    assert one.duplicates == 2


def test_offsets_of_another_log_of_examples_are_let_go_and_the_model_stays() -> None:
    one = shard()
    one.adopt({0: 7})
    learn(one, rows(20))
    assert set(one.offsets) == {0, 1}
    model = encode(one.tensors())
    one.adopt({0: 8, 1: 9})
    assert set(one.offsets) == {1}  # of partition 1 no log was known
    assert one.logs == {0: 8, 1: 9}
    assert encode(one.tensors()) == model
    assert one.manifest(0).logs == {0: 8, 1: 9}
