"""Examples as they come from Kafka, checked, and as the columns that policies learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from banditmesh.bandits import rewards
from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.bandits.hashing import content_key, logic_key, service_key
from banditmesh.bandits.rewards import CAP_FACTOR
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import Unreadable
from services.learner.decision_checks import check_decision, check_time
from services.learner.packed import packed

Name = TypeVar("Name", bound=tuple[str, ...])

MAX_REWARD = CAP_FACTOR * rewards.MAX_REWARD
"""The largest that a joiner gives: no ``rewards.cap`` is above it."""


MOST_SKEW_MS = 86_400_000
"""How far brokers' clocks may be apart: no example is of an impression that is shown so much later."""


class Received(NamedTuple):
    """An example with the parts of its message at hand: protobuf makes an object anew each time that one is asked for a
    part of it, and an example is asked by many."""

    example: events_pb2.Example
    source: events_pb2.Source
    joined: events_pb2.JoinedImpression
    decision: events_pb2.Decision
    placement: str
    ids: bytes
    """Of its features: little-endian uint32."""
    values: bytes
    """Little-endian float32, one for each id; empty: each is 1."""


def received(example: events_pb2.Example) -> Received:
    """The parts of an example."""
    joined = example.joined
    decision = joined.decision
    return Received(example, example.source, joined, decision, decision.placement, *packed(decision.features))


def decode(value: bytes, written_ms: int) -> Received | None:
    """The example in a record's value; None for a tick. ``written_ms``: the record's time. Raises Unreadable."""
    try:
        example = events_pb2.Example.FromString(value)
    except DecodeError as error:
        raise Unreadable("not_a_protobuf", f"{len(value)} bytes are no events.v1.Example: {error}") from error
    body = example.WhichOneof("body")
    if body == "tick":
        return None
    if body is None:
        raise Unreadable("empty", "the record has neither a joined impression nor a tick")
    if not example.HasField("source"):
        raise Unreadable("no_source", "source is not said, so a second copy could not be recognised")
    one = received(example)
    _check(one, written_ms)
    return one


def _check(one: Received, written_ms: int) -> None:
    """Each field is fetched once, and what is usual is passed by one comparison: this is half of a decoder's time."""
    joined, decision = one.joined, one.decision
    if joined.outcome == events_pb2.OUTCOME_UNSPECIFIED:
        raise Unreadable("no_outcome", "joined.outcome is not said, so there is no reward")
    reward = joined.reward
    if not -MAX_REWARD <= reward <= MAX_REWARD:  # also for NaN
        if not math.isfinite(reward):
            raise Unreadable("not_finite", f"joined.reward is {reward}")
        raise Unreadable("reward", f"joined.reward is {reward}, beyond {MAX_REWARD:g}")
    if not (one.placement and decision.service and decision.content_id):
        raise Unreadable("no_decision", "joined.decision lacks its placement, service or content")
    propensity = decision.propensity
    if not 0 <= propensity <= 1:  # also false for NaN
        raise Unreadable("propensity", f"joined.decision.propensity is {propensity}, not in [0, 1]")
    check_decision(decision, "joined.decision")
    # What was shown in the far future would let all that comes after it count as forgotten.
    check_time("joined.impression_time_ms", joined.impression_time_ms, before_ms=written_ms + MOST_SKEW_MS)
    check_time("joined.reaction_time_ms", joined.reaction_time_ms)
    if one.values:
        _check_values(one)


def _check_values(one: Received) -> None:
    ids, values = np.frombuffer(one.ids, "<u4"), np.frombuffer(one.values, "<f4")
    if len(values) != len(ids):
        raise Unreadable("features", f"joined.decision.features has {len(ids)} ids and {len(values)} values")
    for position in np.flatnonzero(~np.isfinite(values)).tolist():
        raise Unreadable("not_finite", f"joined.decision.features.values[{position}] is {float(values[position])}")


@dataclass(frozen=True)
class Columns:
    """Examples of one placement in their order, and where each comes from."""

    examples: Examples
    partitions: NDArray[np.int64]
    """int64[n], partition of ``examples``."""
    offsets: NDArray[np.int64]
    """int64[n], offset there."""
    source_partitions: NDArray[np.int64]
    """int64[n], partition of ``impressions``."""
    source_offsets: NDArray[np.int64]
    """int64[n], offset there."""
    source_logs: NDArray[np.int64]
    """int64[n], which log that offset counts; 0: not said."""
    received: Sequence[Received]
    """n, as they came."""

    def __len__(self) -> int:
        return len(self.offsets)


def columns(rows: Sequence[tuple[int, int, Received]]) -> Columns:
    """Columns of (partition, offset, example) rows."""
    partitions, offsets, found = zip(*rows, strict=True) if rows else ((), (), ())
    sources = [each.source for each in found]
    joined = [each.joined for each in found]
    decisions = [each.decision for each in found]
    services = [each.service for each in decisions]
    names = list(zip(services, [each.content_id for each in decisions], strict=True))
    logics = zip(services, [each.logic for each in decisions], strict=True)
    examples = Examples(
        contents=_keys(names, content_key),
        logics=_keys(list(logics), logic_key),
        services=_keys(list(zip(services, strict=True)), service_key),
        features=_features(found),
        rewards=np.array([each.reward for each in joined], np.float32),
        # 0 says that it is not known; 1 leaves such an example as it is.
        propensities=np.array([each.propensity or 1.0 for each in decisions], np.float32),
        times_s=np.array([each.impression_time_ms for each in joined], np.float64) / 1000,
        clicked=np.array([events_pb2.OUTCOME_CLICK in each.reactions for each in joined], np.bool_),
        names=names,
    )
    return Columns(
        examples,
        np.array(partitions, np.int64),
        np.array(offsets, np.int64),
        np.array([source.partition for source in sources], np.int64),
        np.array([source.offset for source in sources], np.int64),
        np.array([source.log for source in sources], np.int64),
        found,
    )


def _features(given: Sequence[Received]) -> SparseRows:
    ids = [each.ids for each in given]
    offsets = np.zeros(len(given) + 1, np.int64)
    np.cumsum([len(each) >> 2 for each in ids], out=offsets[1:])
    values = np.ones(int(offsets[-1]), np.float32)
    for row, said in enumerate([each.values for each in given]):
        if said:
            values[offsets[row] : offsets[row + 1]] = np.frombuffer(said, "<f4")
    return SparseRows(offsets, np.frombuffer(b"".join(ids), "<u4"), values)


def _keys(names: Sequence[Name], key: Callable[..., int]) -> NDArray[np.uint64]:
    """uint64[n]: the key of each name; each is worked out once."""
    known = {name: key(*name) for name in set(names)}
    return np.fromiter(map(known.__getitem__, names), np.uint64, len(names))
