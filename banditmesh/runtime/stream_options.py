"""Sections ``token``, ``kafka`` and ``join`` of ``mesh.yaml``: events on their way to examples."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from banditmesh.bandits.durations import Positive
from banditmesh.runtime.section import Section


class Token(Section):
    """The impression token."""

    max_age: Positive = Field(3600.0, description="Events of older decisions are refused.")


class Kafka(Section):
    """Topics."""

    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,128}$")] = Field(
        "", description="Put before each topic's name."
    )
    partitions: int = Field(4, ge=1, le=4096, description="Of each topic; only read when topics are created.")
    replication: int = Field(1, ge=1, le=9, description="Of each topic; only read when topics are created.")


class Join(Section):
    """The join of impressions and reactions."""

    window: Positive = Field(600.0, description="How long after an impression a reaction counts, by the broker's time.")
    tick_every: Positive = Field(1.0, description="An idle partition's time is brought forward this often.")
    slack: Positive = Field(
        21600.0, description="How late a joiner may run (outages included) before reactions expire in Redis."
    )
    rollout_until: AwareDatetime | None = Field(
        None,
        description="Until this moment, such as 2027-01-31T12:00:00Z, a release with new kinds of reaction is being "
        "rolled out (or back): a joiner that does not know a kind keeps the reaction for one that does, and makes no "
        "dead letter of it.",
    )

    @property
    def rollout_until_s(self) -> float:
        """``rollout_until`` in seconds since the Unix epoch; 0: no rollout is declared."""
        return 0.0 if self.rollout_until is None else self.rollout_until.timestamp()
