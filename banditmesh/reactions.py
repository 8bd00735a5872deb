"""The kinds of reaction that a user can have to a shown content: everything that differs between them, in one place.

A new kind is one message in ``events.v1``, one case ``<name>`` of ``events.v1.Reaction.kind`` and of
``tracker.v1.Event.kind``, one ``Outcome``, and one entry in :data:`KINDS`. What the tracker accepts, the joiner stores
and joins, the user record remembers and ``rewards`` pays follows from the entry; a test walks all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from banditmesh.lengths import MAX_NAME_BYTES

MAX_WEIGHT: Final = 1e9
"""Of a target action: a weight is a factor such as an amount of money."""
MAX_DWELL_S: Final = 3600.0
MAX_DWELL_PARTS: Final = 1000
"""Of one impression: a part every few seconds for as long as an impression can be reacted to."""


class WrongReaction(ValueError):
    """A reaction whose message is not valid. ``field`` is a path from the kind's name on."""

    def __init__(self, reason: str, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.reason = reason
        self.field = field


class Rewards(Protocol):
    """What a placement pays; ``banditmesh.bandits.rewards.RewardSpec`` is it."""

    @property
    def click(self) -> float:
        """Reward of a click."""

    @property
    def mute(self) -> float:
        """Reward of a mute."""

    @property
    def dwell(self) -> float | None:
        """Reward of each second that the user stays; None: it does not count."""

    @property
    def targets(self) -> Mapping[str, float]:
        """Reward of each target action, by name."""


@dataclass(frozen=True, kw_only=True)
class ReactionKind:
    """A kind of reaction.

    Attributes:
        name: The wire case, the name in ``rewards`` and ``precedence``, the first part of a stored reaction's key.
        outcome: Its name in ``events.v1.Outcome``.
        read: From the message of the wire case to (part, amount). Two reactions to one impression that have the same
            kind and part are one reaction that was sent twice. The amount is a factor on the reward. Raises
            WrongReaction.
        reward: What one unit of the amount earns by a placement's rewards, given the part; None: it does not count.
        most: The largest amount that all reactions of the kind to one impression can have.
        adds_up: Whether the amounts of all parts add up; else the best paid part counts.
        counter: Of the user record; counts the reactions, or adds the amounts up.
        section: Of the user record, which remembers the newest; empty: none does.
        listed: The parts that a placement lists and that alone are accepted; None: any.
    """

    name: str
    outcome: str
    read: Callable[[Any], tuple[str, float]]
    reward: Callable[[Rewards, str], float | None]
    counter: str
    section: str
    most: float
    adds_up: bool
    listed: Callable[[Rewards], Collection[str]] | None

    def key(self, part: str) -> str:
        """What tells the reactions to one impression apart."""
        return f"{self.name}:{part}" if part else self.name

    def counted(self, amount: float) -> Mapping[str, int]:
        """What a reaction adds to the counters of the user record."""
        return {self.counter: round(amount)} if self.adds_up else {"feedback": 1, self.counter: 1}


def _plain(_: Any) -> tuple[str, float]:
    return "", 1.0


def _target(message: Any) -> tuple[str, float]:
    name, weight = message.name, message.weight
    if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
        reason = "no_target_name" if not name else "bad_target_name"
        raise WrongReaction(reason, "target.name", f"= {name[:80]!r}: must have 1 to {MAX_NAME_BYTES} bytes of UTF-8")
    if not (math.isfinite(weight) and 0 <= weight <= MAX_WEIGHT):
        raise WrongReaction(
            "bad_weight",
            "target.weight",
            f"= {weight:g}: must be a number from 0 to {MAX_WEIGHT:g} (0 stands for the default, 1)",
        )
    return name, weight or 1.0


def _dwell(message: Any) -> tuple[str, float]:
    seconds, part = message.seconds, message.part
    if not (math.isfinite(seconds) and 0 < seconds <= MAX_DWELL_S):
        raise WrongReaction(
            "bad_seconds", "dwell.seconds", f"= {seconds:g}: must be a number greater than 0, at most {MAX_DWELL_S:g}"
        )
    if part >= MAX_DWELL_PARTS:
        raise WrongReaction("bad_part", "dwell.part", f"= {part}: must be less than {MAX_DWELL_PARTS}")
    return str(part), seconds


def _registry(*kinds: ReactionKind) -> Mapping[str, ReactionKind]:
    return {kind.name: kind for kind in kinds}


KINDS: Final = _registry(
    ReactionKind(
        name="mute",
        outcome="OUTCOME_MUTE",
        read=_plain,
        reward=lambda rewards, _: rewards.mute,
        counter="mutes",
        section="mutes",
        most=1.0,
        adds_up=False,
        listed=None,
    ),
    ReactionKind(
        name="target",
        outcome="OUTCOME_TARGET",
        read=_target,
        reward=lambda rewards, name: rewards.targets.get(name),
        counter="targets",
        section="targets",
        most=MAX_WEIGHT,
        adds_up=False,
        listed=lambda rewards: rewards.targets,
    ),
    ReactionKind(
        name="click",
        outcome="OUTCOME_CLICK",
        read=_plain,
        reward=lambda rewards, _: rewards.click,
        counter="clicks",
        section="clicks",
        most=1.0,
        adds_up=False,
        listed=None,
    ),
    ReactionKind(
        name="dwell",
        outcome="OUTCOME_DWELL",
        read=_dwell,
        reward=lambda rewards, _: rewards.dwell,
        counter="dwell_s",
        section="",
        most=MAX_DWELL_S * MAX_DWELL_PARTS,
        adds_up=True,
        listed=None,
    ),
)
"""By name, the strongest first: the default precedence."""


def precedence(first: Iterable[str]) -> tuple[str, ...]:
    """All kinds, those of ``first`` before the others, which keep their default order.

    Raises:
        ValueError: One is not known, or stands twice.
    """
    named = tuple(first)
    unknown = [name for name in named if name not in KINDS]
    if unknown or len(set(named)) < len(named):
        raise ValueError(f"must hold each of {', '.join(KINDS)} once at most, holds {', '.join(named) or 'nothing'}")
    return (*named, *(name for name in KINDS if name not in named))
