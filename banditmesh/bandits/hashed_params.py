"""The parameters that `linear`, `fm`, `nfm` and `stacked` share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from banditmesh.bandits.durations import Positive
from banditmesh.bandits.link import Link
from banditmesh.bandits.policy import PolicyParams


class HashedParams(PolicyParams):
    """Parameters that `linear`, `fm` and `nfm` share."""

    arm: Literal["content", "logic", "service", "none"] = Field(
        default="content", description="What is a feature of its own beside those given; none: nothing is."
    )
    link: Link = Field(
        default="identity",
        description="identity: squared error, for any reward. logit: log loss, for rewards from 0 to 1 (clicks).",
    )
    prior_reward: float = Field(default=0.5, description="Expected reward before anything is known.")
    ridge: float = Field(
        default=3.0,
        gt=0,
        description="Precision of the prior on each weight, in examples, to begin with; then read off the weights.",
    )
    noise: float | None = Field(
        default=None,
        gt=0,
        description="Standard deviation of one reward under link identity, for the deviation; null: that of the "
        "residuals so far.",
    )
    iterations: int = Field(
        default=3, ge=1, le=100, description="Steps of the weights towards the minimum of each mini-batch."
    )
    batch: int = Field(default=256, ge=1, le=65536, description="Examples of one step, a power of two.")
    bits: int = Field(default=22, ge=1, le=28, description="Feature ids are folded to so many bits.")
    max_features: int = Field(
        default=1 << 22, ge=1, description="Features kept; beyond this the ones seen longest ago are retired."
    )
    retire_after: Positive | None = Field(
        default=None, description="Features not seen for so long are retired; null keeps them."
    )
    half_life: Positive | None = Field(
        default=None, description="Age at which evidence counts half (drift); null never forgets."
    )

    @field_validator("batch")
    @classmethod
    def _batch_is_a_power_of_two(cls, batch: int) -> int:
        if batch & (batch - 1):
            raise ValueError("must be a power of two")
        return batch

    @property
    def rewards_within(self) -> tuple[float, float]:
        """See `PolicyParams`."""
        return (0.0, 1.0) if self.link == "logit" else super().rewards_within

    def model_post_init(self, context: Any, /) -> None:
        """Rejects a prior reward that the link cannot give."""
        if self.link == "logit" and not 0 < self.prior_reward < 1:
            raise ValueError("prior_reward must lie between 0 and 1 under link logit")
