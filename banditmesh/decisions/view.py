"""What a policy sees of a row beside the features as logged: the user as a category, and crosses."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from banditmesh.decisions.features import Features
from banditmesh.decisions.row import Candidate

IDENTITIES: Final = ("id", "service", "logic")
GROUPS: Final = ("context", "candidate")


class View(BaseModel):
    """Frozen; two policies with equal views share their encoded batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: bool = Field(default=False, description="Whether the row's user is a category of the context.")
    cross: tuple[tuple[str, str], ...] = Field(
        default=(),
        description="Pairs whose features are multiplied: feature names; id, service, logic of the candidate; context "
        "or candidate for all features of that side.",
    )

    needed: tuple[str, ...] = Field(
        default=(), description="Fields that every row must have, in the context or in each candidate."
    )

    @field_validator("cross")
    @classmethod
    def _two_sides(cls, cross: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        for left, right in cross:
            if left == right or not left or not right:
                raise ValueError(f"{left}*{right} is no cross of two different sides")
        return cross


def side_of(side: str, context: Features, candidate: Candidate) -> Features:
    """What a side of a cross stands for, as features; none when the row has no such feature."""
    own = candidate.features
    if side == "context":
        return context if own.keys().isdisjoint(context) else without(context, own)
    if side == "candidate":
        return own
    if side in own:
        return {side: own[side]}
    if side in context:
        return {side: context[side]}
    if side in IDENTITIES:
        return {side: getattr(candidate, side)}
    return {}


def without(features: Features, others: Features) -> Features:
    """The features whose names the others do not have."""
    return {name: features[name] for name in features if name not in others}
