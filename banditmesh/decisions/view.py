"""What a policy sees of a row beside the features as logged: the user as a category, and crosses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from banditmesh.bandits import hashing
from banditmesh.decisions.row import Candidate, Features

IDENTITIES: Final = ("id", "service", "logic")
GROUPS: Final = ("context", "candidate")
Entries = list[tuple[int, float]]


class View(BaseModel):
    """Frozen; two policies with equal views share their encoded batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: bool = Field(default=False, description="Whether the row's user is a category of the context.")
    cross: tuple[tuple[str, str], ...] = Field(
        default=(),
        description="Pairs whose features are multiplied: feature names; id, service, logic of the candidate; context "
        "or candidate for all features of that side.",
    )

    @field_validator("cross")
    @classmethod
    def _two_sides(cls, cross: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        for left, right in cross:
            if left == right or not left or not right:
                raise ValueError(f"{left}*{right} is no cross of two different sides")
        return cross

    def entries(self, side: str, context: Features, candidate: Candidate) -> Entries:
        """(id, value) of everything that a side of a cross stands for; nothing when the row has no such feature."""
        if side == "context":
            return _all(context[name] for name in context if name not in candidate.features)
        if side == "candidate":
            return _all(candidate.features.values())
        if side in candidate.features:
            return list(candidate.features[side])
        if side in context:
            return list(context[side])
        if side in IDENTITIES:
            return [(hashing.categorical_id(side, getattr(candidate, side)), 1.0)]
        return []


def _all(parts: Iterable[tuple[tuple[int, float], ...]]) -> Entries:
    return [entry for part in parts for entry in part]
