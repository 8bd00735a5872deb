"""The join itself: which reactions belong to an impression, and what example comes out. Plain functions; the only times
are the broker's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from banditmesh.bandits import rewards
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.reactions import KINDS
from services.joiner.events import ReadReaction

SCHEMA_VERSION = 1
OUTCOMES = {
    rewards.NONE: events_pb2.OUTCOME_NONE,
    **{kind.name: events_pb2.Outcome.Value(kind.outcome) for kind in KINDS.values()},
}


class Joined(NamedTuple):
    """What a closed impression gives.

    Attributes:
        example: The record's message.
        outcome: The kind that counted, or ``none``.
        clipped: Whether its reward was beyond the placement's cap.
        late: The reactions that came too late for it, of whatever kind, in the order of their times.
        unknown: How many reactions in time were passed over because a newer release knows their kind.
    """

    example: events_pb2.Example
    outcome: str
    clipped: bool
    late: tuple[ReadReaction, ...]
    unknown: int


def belongs(reaction_time_ms: int, impression_time_ms: int, window_ms: int) -> bool:
    """Whether a reaction counts for an impression. Depends on nothing but the broker's times, so not on how late
    anybody reads.

    A reaction may stand before its impression: apps send both at about the same time, and the two topics are not
    ordered.
    """
    return reaction_time_ms <= impression_time_ms + window_ms


def is_closed(impression_time_ms: int, window_ms: int, watermark_ms: int) -> bool:
    """Whether all reactions that can belong to an impression have been read. At the due time itself another one may
    still follow."""
    return impression_time_ms + window_ms < watermark_ms


def join(
    decision: events_pb2.Decision,
    source: events_pb2.Source,
    impression_time_ms: int,
    reactions: Sequence[ReadReaction],
    spec: rewards.RewardSpec,
    window_ms: int,
) -> Joined:
    """Return the example of an impression; equal arguments give equal bytes.

    Args:
        decision: The impression's.
        source: Where the impression stands.
        impression_time_ms: Its broker time.
        reactions: In any order; of those with the same key the first by offset counts.
        spec: The placement's rewards.
        window_ms: The placement's join window.
    """
    # Filled in place: a message that is passed to another one's constructor is copied, features and all.
    example = events_pb2.Example(schema_version=SCHEMA_VERSION)
    example.source.CopyFrom(source)
    joined = example.joined
    joined.decision.CopyFrom(decision)
    joined.impression_time_ms = impression_time_ms
    if not reactions:  # most impressions
        joined.outcome, joined.reward = OUTCOMES[rewards.NONE], spec.none
        return Joined(example, rewards.NONE, False, (), 0)
    first: dict[str, ReadReaction] = {}
    for each in sorted(reactions, key=lambda reaction: reaction.offset):
        first.setdefault(each.key, each)
    in_time = [each for each in first.values() if belongs(each.time_ms, impression_time_ms, window_ms)]
    late = [each for each in first.values() if not belongs(each.time_ms, impression_time_ms, window_ms)]
    counted = [each for each in in_time if each.kind is not None]
    strongest = spec.outcome(_reaction(each) for each in counted)
    joined.outcome = OUTCOMES[strongest.kind]
    joined.target = strongest.part
    joined.reward = strongest.reward
    joined.reaction_time_ms = _time_of(strongest, counted)
    joined.reactions.extend(sorted({OUTCOMES[_reaction(each).kind] for each in counted}))
    late.sort(key=lambda each: (each.time_ms, each.key))
    return Joined(example, strongest.kind, strongest.clipped, tuple(late), len(in_time) - len(counted))


def _reaction(read: ReadReaction) -> rewards.Reaction:
    assert read.kind is not None  # the others were passed over
    return rewards.Reaction(read.kind.name, read.part, read.amount)


def _time_of(outcome: rewards.Outcome, counted: Sequence[ReadReaction]) -> int:
    """Broker time of the reaction that counted, of the newest one where the kind adds up; 0 when none did."""
    times = [
        each.time_ms
        for each in counted
        if each.kind is not None and each.kind.name == outcome.kind and (each.kind.adds_up or each.part == outcome.part)
    ]
    return max(times, default=0)
