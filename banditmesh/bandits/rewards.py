"""What a shown content earned: of several reactions to one impression the strongest counts, and it has a reward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Kind = Literal["mute", "target", "click"]


@dataclass(frozen=True, slots=True)
class Reaction:
    """One reaction of a user to an impression.

    Attributes:
        kind: click, mute, or target (an action that the service team defined, such as a purchase).
        target: the name of the target action; empty for the other kinds.
        weight: factor on the reward of a target action, for instance the amount of a purchase.
    """

    kind: Kind
    target: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an impression. `kind` is "none" when nothing came that counts; `target` names the action."""

    kind: Literal["none", "mute", "target", "click"]
    reward: float
    target: str = ""


class RewardSpec(BaseModel):
    """Rewards of a placement. The default is the published one: click 1.0, shown and ignored 0.5, muted 0.0."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    click: float = Field(default=1.0, description="Reward of a click.")
    none: float = Field(default=0.5, description="Reward when the content was shown and nothing came.")
    mute: float = Field(default=0.0, description="Reward of a mute.")
    targets: dict[str, float] = Field(default_factory=dict, description="Reward of each target action, by name.")
    precedence: tuple[Kind, ...] = Field(
        default=("mute", "target", "click"),
        description="Which kind of reaction counts when several came, strongest first.",
    )

    @field_validator("targets")
    @classmethod
    def _targets_are_named(cls, targets: dict[str, float]) -> dict[str, float]:
        if "" in targets:
            raise ValueError("a target action needs a name")
        return targets

    @field_validator("precedence")
    @classmethod
    def _precedence_is_complete(cls, precedence: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if sorted(precedence) != ["click", "mute", "target"]:
            raise ValueError(f"must hold mute, target and click once each, holds {', '.join(precedence) or 'nothing'}")
        return precedence

    def outcome(self, reactions: Iterable[Reaction]) -> Outcome:
        """The strongest outcome of the reactions, whatever their order and however often each came.

        A target action that `targets` does not name is passed over. Of several target actions the best paid counts,
        of equally paid ones the first by name.
        """
        came: dict[Kind, Outcome] = {}
        for reaction in reactions:
            if reaction.kind != "target":
                came[reaction.kind] = Outcome(reaction.kind, self.click if reaction.kind == "click" else self.mute)
            elif reaction.target in self.targets:
                outcome = Outcome("target", self.targets[reaction.target] * reaction.weight, reaction.target)
                rival = came.get("target", outcome)
                came["target"] = min(outcome, rival, key=lambda o: (-o.reward, o.target))
        for kind in self.precedence:
            if kind in came:
                return came[kind]
        return Outcome("none", self.none)
