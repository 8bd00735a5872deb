"""Examples: what is refused, and the columns of what is not."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.hashing import content_key, logic_key, service_key
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import Unreadable
from services.learner.examples import columns, decode, received
from tests.support.examples import T0_MS, example, tick


def broken(**changes: object) -> events_pb2.Example:
    """An example with one thing wrong."""
    one = example(values=(0.5, 0.25))
    for path, value in changes.items():
        target = {
            "outcome": one.joined,
            "impression_time_ms": one.joined,
            "reaction_time_ms": one.joined,
            "decided_at_ms": one.joined.decision,
            "position": one.joined.decision,
            "model_version": one.joined.decision,
            "placement": one.joined.decision,
            "content_id": one.joined.decision,
            "service": one.joined.decision,
            "user_id": one.joined.decision,
            "propensity": one.joined.decision,
            "reward": one.joined,
        }[path]
        setattr(target, path, value)
    return one


def no_source() -> events_pb2.Example:
    one = example()
    one.ClearField("source")
    return one


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        (b"\xff\xff\xff", "not_a_protobuf", "3 bytes"),
        (b"", "empty", "neither"),
        (no_source().SerializeToString(), "no_source", "source"),
        (broken(outcome=0).SerializeToString(), "no_outcome", "outcome"),
        (broken(reward=float("nan")).SerializeToString(), "not_finite", "reward is nan"),
        (broken(reward=float("inf")).SerializeToString(), "not_finite", "reward is inf"),
        (broken(reward=3e38).SerializeToString(), "reward", "reward is 3"),
        (example(values=(1.0, float("nan"))).SerializeToString(), "not_finite", "values[1] is nan"),
        (example(values=(1.0,)).SerializeToString(), "features", "2 ids and 1 values"),
        (broken(placement="").SerializeToString(), "no_decision", "placement"),
        (broken(content_id="").SerializeToString(), "no_decision", "content"),
        (broken(propensity=1.5).SerializeToString(), "propensity", "1.5"),
        (broken(propensity=float("nan")).SerializeToString(), "propensity", "nan"),
        (broken(impression_time_ms=-1).SerializeToString(), "out_of_range", "impression_time_ms is -1"),
        (broken(impression_time_ms=T0_MS + 2 * 86_400_000).SerializeToString(), "out_of_range", "impression_time_ms"),
        (broken(reaction_time_ms=253_402_300_800_000).SerializeToString(), "out_of_range", "reaction_time_ms"),
        (broken(decided_at_ms=2**63 - 1).SerializeToString(), "out_of_range", "decided_at_ms"),
        (broken(position=2**31).SerializeToString(), "out_of_range", "position"),
        (broken(model_version=2**63).SerializeToString(), "out_of_range", "model_version"),
        (broken(placement="é" * 33).SerializeToString(), "too_long", "placement is longer than 64 bytes"),
        (broken(service="x" * 65).SerializeToString(), "too_long", "service is longer than 64 bytes"),
        (broken(content_id="x" * 257).SerializeToString(), "too_long", "content_id is longer than 256 bytes"),
        (broken(user_id="x" * 129).SerializeToString(), "too_long", "user_id is longer than 128 bytes"),
    ],
)
def test_a_record_that_teaches_nothing_is_refused_with_the_reason(value: bytes, reason: str, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(value, T0_MS)
    assert caught.value.reason == reason
    assert said in caught.value.detail


def test_a_tick_is_no_example() -> None:
    assert decode(tick().SerializeToString(), T0_MS) is None


def test_fields_of_a_later_schema_are_ignored() -> None:
    unknown_field = bytes([0xFA, 0x3F, 1, 0x41])  # field 1023, length-delimited, "A"
    assert decode(example().SerializeToString() + unknown_field, T0_MS) is not None


def test_columns_hold_the_examples_in_their_order() -> None:
    first = example(source=(3, 70), content="a", reward=1.0, ids=(7, 8), values=(0.5, 2.0), time_ms=T0_MS)
    second = example(source=(4, 71), content="b", reward=0.5, ids=(9,), time_ms=T0_MS + 1500)
    second.joined.reactions.append(events_pb2.OUTCOME_CLICK)
    second.joined.decision.propensity = 0.0
    found = columns([(0, 10, received(first)), (1, 20, received(second))])
    assert found.partitions.tolist() == [0, 1]
    assert found.offsets.tolist() == [10, 20]
    assert found.source_partitions.tolist() == [3, 4]
    assert found.source_offsets.tolist() == [70, 71]
    examples = found.examples
    assert examples.contents.tolist() == [content_key("films", "a"), content_key("films", "b")]
    assert examples.logics.tolist() == [logic_key("films", "similar")] * 2
    assert examples.services.tolist() == [service_key("films")] * 2
    assert examples.features.offsets.tolist() == [0, 2, 3]
    assert examples.features.ids.tolist() == [7, 8, 9]
    assert examples.features.values.tolist() == [0.5, 2.0, 1.0]
    assert examples.rewards.tolist() == [1.0, 0.5]
    assert examples.propensities.tolist() == [0.5, 1.0]
    assert examples.times_s.tolist() == [T0_MS / 1000, T0_MS / 1000 + 1.5]
    assert examples.clicked.tolist() == [False, True]
    assert examples.names == [("films", "a"), ("films", "b")]
    assert examples.contents.dtype == np.dtype(np.uint64)
    assert examples.rewards.dtype == np.dtype(np.float32)
