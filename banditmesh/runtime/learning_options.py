"""Section ``learning.validation`` of ``mesh.yaml``: when a model is not good enough to be published."""

from __future__ import annotations

from pydantic import Field

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
