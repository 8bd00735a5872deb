"""What a shown content earned: of several reactions to one impression the strongest counts, and it has a reward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from banditmesh import reactions as registry
from banditmesh.lengths import MAX_NAME_BYTES

NONE: Final = "none"
"""The outcome of an impression to which nothing came that counts."""
MAX_REWARD: Final = 1e6
"""Models compute in float32, and square it: beyond this a reward is a slip of the hand."""
CAP_FACTOR: Final = 10.0
"""The default cap is so many times the largest configured reward."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """One reaction of a user to an impression.

    Attributes:
        kind: A name of ``banditmesh.reactions.KINDS``.
        part: What tells several reactions of the kind apart, such as the name of a target action; often empty.
        amount: Factor on the reward, for instance the amount of a purchase.
    """

    kind: str
    part: str = ""
    amount: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an impression.

    Attributes:
        kind: The kind that counted, or :data:`NONE`.
        reward: What it earned.
        part: Of the reaction that counted; empty where the kind adds up.
        clipped: Whether the reward would have been beyond the placement's cap.
    """

    kind: str
    reward: float
    part: str = ""
    clipped: bool = False


class RewardSpec(BaseModel):
    """Rewards of a placement. The default is the published one: click 1.0, shown and ignored 0.5, muted 0.0."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    click: float = Field(default=1.0, description="Reward of a click.")
    none: float = Field(default=0.5, description="Reward when the content was shown and nothing came.")
    mute: float = Field(default=0.0, description="Reward of a mute.")
    dwell: float | None = Field(
        default=None, description="Reward of each second that the user stays with the content; absent: does not count."
    )
    targets: dict[str, float] = Field(default_factory=dict, description="Reward of each target action, by name.")
    precedence: tuple[str, ...] = Field(
        default=registry.precedence(()),
        description="Which kind of reaction counts when several came, strongest first; kinds that are left out follow.",
    )
    cap: float | None = Field(
        default=None,
        ge=0,
        le=CAP_FACTOR * MAX_REWARD,
        description="Rewards beyond it, or below its negative, are clipped and counted; absent: ten times the largest "
        "reward that stands here. A weight is a factor, and one slipped digit would outweigh all other examples.",
    )

    @field_validator("click", "none", "mute", "dwell", "targets", "cap", mode="before")
    @classmethod
    def _yes_is_no_number(cls, reward: Any) -> Any:
        if any(isinstance(each, bool) for each in (reward.values() if isinstance(reward, dict) else (reward,))):
            raise ValueError("must be a number: YAML reads yes, on, no, off as true or false")
        return reward

    @field_validator("click", "none", "mute", "dwell")
    @classmethod
    def _reward_is_a_sane_number(cls, reward: float | None) -> float | None:
        if reward is not None and abs(reward) > MAX_REWARD:
            raise ValueError(f"must be from -{MAX_REWARD:g} to {MAX_REWARD:g}")
        return reward

    @field_validator("targets")
    @classmethod
    def _targets_are_named(cls, targets: dict[str, float]) -> dict[str, float]:
        for name, reward in targets.items():
            if abs(reward) > MAX_REWARD:
                raise ValueError(f"{name}: must be from -{MAX_REWARD:g} to {MAX_REWARD:g}")
            if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
                raise ValueError(f"{name[:80]!r}: a target action's name has 1 to {MAX_NAME_BYTES} bytes of UTF-8")
        return targets

    @field_validator("precedence")
    @classmethod
    def _precedence_is_complete(cls, precedence: tuple[str, ...]) -> tuple[str, ...]:
        return registry.precedence(precedence)

    @model_validator(mode="after")
    def _cap_leaves_room(self) -> RewardSpec:
        if self.cap is not None and self.cap < self._largest:
            raise ValueError(f"cap is {self.cap:g}, below a reward that stands here, {self._largest:g}")
        return self

    @cached_property
    def limit(self) -> float:
        """The cap, or its default."""
        return CAP_FACTOR * self._largest if self.cap is None else self.cap

    @property
    def _largest(self) -> float:
        return max(abs(each) for each in (self.click, self.none, self.mute, self.dwell or 0.0, *self.targets.values()))

    def range(self) -> tuple[float, float]:
        """The least and the largest reward that an impression of the placement can earn."""
        earned = [self.none]
        for kind in registry.KINDS.values():
            for part in kind.listed(self) if kind.listed else ("",):
                reward = kind.reward(self, part)
                if reward is not None:
                    earned += [0.0, self._clip(reward * kind.most)] if kind.most > 1 else [reward]
        return min(earned), max(earned)

    def outcome(self, reactions: Iterable[Reaction]) -> Outcome:
        """The strongest outcome of the reactions, whatever their order.

        A reaction that earns nothing by these rewards, such as a target action that `targets` does not name, is passed
        over. Of several parts of one kind the best paid counts, of equally paid ones the first by name; where the kind
        adds up, the sum of all amounts does.
        """
        came: dict[str, Outcome] = {}
        for reaction in sorted(reactions, key=lambda each: (each.kind, each.part)):
            kind = registry.KINDS[reaction.kind]
            reward = kind.reward(self, reaction.part)
            if reward is None:
                continue
            earned = reward * reaction.amount
            best = came.get(kind.name)
            if kind.adds_up:
                came[kind.name] = Outcome(kind.name, earned + (best.reward if best else 0.0))
            elif best is None or earned > best.reward:
                came[kind.name] = Outcome(kind.name, earned, reaction.part)
        for name in self.precedence:
            if name in came:
                found = came[name]
                clipped = self._clip(found.reward)
                return Outcome(name, clipped, found.part, clipped != found.reward)
        return Outcome(NONE, self.none)

    def _clip(self, reward: float) -> float:
        return min(max(reward, -self.limit), self.limit)
