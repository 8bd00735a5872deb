"""The join itself: which reactions belong to an impression, and what example comes out. Plain functions; the only times
are the broker's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from banditmesh.bandits import rewards
from banditmesh.contracts.events.v1 import events_pb2
from services.joiner.events import TARGET, Reaction

SCHEMA_VERSION = 1
OUTCOMES = {
    "none": events_pb2.OUTCOME_NONE,
    "click": events_pb2.OUTCOME_CLICK,
    "mute": events_pb2.OUTCOME_MUTE,
    "target": events_pb2.OUTCOME_TARGET,
}


@dataclass(frozen=True, slots=True)
class Came:
    """A reaction that came to an impression, the first of its kind. ``time_ms``: the broker's; ``value``: the record as
    it was."""

    reaction: Reaction
    time_ms: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Joined:
    """What a closed impression gives: its example, and the reactions that came too late for it."""

    example: events_pb2.Example
    outcome: str
    late: tuple[Came, ...]


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
    came: Sequence[Came],
    spec: rewards.RewardSpec,
    window_ms: int,
) -> Joined:
    """Return the example of an impression; equal arguments give equal bytes.

    Args:
        decision: The impression's.
        source: Where the impression stands.
        impression_time_ms: Its broker time.
        came: The first reaction of each kind, in any order.
        spec: The placement's rewards.
        window_ms: The placement's join window.
    """
    counted = [each for each in came if belongs(each.time_ms, impression_time_ms, window_ms)]
    late = [each for each in came if not belongs(each.time_ms, impression_time_ms, window_ms)]
    strongest = spec.outcome(_reaction(each.reaction) for each in counted)
    joined = events_pb2.JoinedImpression(
        decision=decision,
        outcome=OUTCOMES[strongest.kind],
        target=strongest.target,
        reward=strongest.reward,
        impression_time_ms=impression_time_ms,
        reaction_time_ms=_time_of(strongest, counted),
        reactions=sorted({OUTCOMES[_kind(each.reaction)] for each in counted}),
    )
    example = events_pb2.Example(schema_version=SCHEMA_VERSION, source=source, joined=joined)
    return Joined(example, strongest.kind, tuple(sorted(late, key=lambda each: (each.time_ms, each.reaction.kind))))


def _kind(reaction: Reaction) -> Literal["click", "mute", "target"]:
    return "target" if reaction.kind.startswith(TARGET) else cast(Literal["click", "mute"], reaction.kind)


def _reaction(reaction: Reaction) -> rewards.Reaction:
    return rewards.Reaction(_kind(reaction), reaction.kind.partition(":")[2], reaction.weight)


def _time_of(outcome: rewards.Outcome, counted: Iterable[Came]) -> int:
    kind = TARGET + outcome.target if outcome.kind == "target" else outcome.kind
    return next((each.time_ms for each in counted if each.reaction.kind == kind), 0)
