"""Section ``learning`` of ``mesh.yaml``: how often models are published, and when one is not good enough to be."""

from __future__ import annotations

from pydantic import Field

from banditmesh.bandits.durations import Positive
from banditmesh.runtime.section import Section


class ValidationLimits(Section):
    """A snapshot that predicts the newest examples worse than the one before is not published; off by default."""

    examples: int = Field(
        1000,
        ge=10,
        le=1_000_000,
        description="How many of the newest count, each predicted before it was learned; with fewer everything is "
        "published.",
    )
    reward: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="By how much the mean reward of what the model thinks better of may be less.",
    )
    log_loss: float | None = Field(None, ge=0, allow_inf_nan=False, description="By how much the log loss may be more.")
    calibration: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="By how much the mean prediction may be further from the mean reward, in rewards.",
    )

    @property
    def on(self) -> bool:
        """Whether anything is held back at all."""
        return (self.reward, self.log_loss, self.calibration) != (None, None, None)


class Learning(Section):
    """The learner."""

    snapshot_every: Positive = Field(30.0, description="How often a model that has learned something is published.")
    batch: int = Field(1024, ge=1, le=100_000, description="Examples that one learning step takes at most.")
    stall_after: Positive = Field(60.0, description="A partition that is silent this long is no longer waited for.")
    validation: ValidationLimits = Field(default_factory=ValidationLimits)
