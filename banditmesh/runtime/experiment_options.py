"""What ``mesh.yaml`` may say of an experiment beside its variants: guardrails, and its layer."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from banditmesh.runtime.section import Name, Section

HOLDOUT: Final = "holdout"
NOT_IN_LAYER: Final = "not_in_layer"
RESERVED: Final = (HOLDOUT, NOT_IN_LAYER)
"""What decisions say of users who take part in no variant; both are served by the control's policy."""

GuardedMetric = Literal["mute_rate", "no_content_rate", "click_rate", "target_rate", "dwell_rate", "reward"]


class Guardrail(Section):
    """How much worse than the control a variant may be before it is stopped by itself."""

    worse_than_control_by: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="The variant is stopped once its difference to the control is surely (by the confidence sequence) "
        "on the bad side of this. Of mute_rate and no_content_rate more is worse, of all others less.",
    )


class Layer(Section):
    """Which users an experiment may have. Experiments that share a layer never share a user."""

    name: Name = Field(description="Of the layer; its users are divided by a hash of this name and their id.")
    users: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = Field(
        strict=False,
        description="[from, to), a part of [0, 1): no two placements of a layer may overlap. A wider one keeps the "
        "users of the narrower.",
    )

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        start, end = self.users
        if start >= end:
            raise ValueError(f"users: [{start:g}, {end:g}] holds nobody; the first must be the smaller")
        return self
