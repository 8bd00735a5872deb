"""Section ``experiment`` of a placement: its variants, and who is in which."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, model_validator

from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.registry import (
    DEFAULT,
    EXPLORATIONS,
    POLICIES,
    build_exploration,
    exploration_of,
    model_name,
    policy_params,
)
from banditmesh.runtime.experiment_options import RESERVED, GuardedMetric, Guardrail, Layer
from banditmesh.runtime.retrieval_options import Retrieve
from banditmesh.runtime.section import Name, Section
from banditmesh.runtime.validation import WrongKeys, suggestion


class Variant(Section):
    """One arm of an experiment: how to score and how to explore."""

    weight: float = Field(
        ge=0, le=1e9, allow_inf_nan=False, description="Share of the users, relative to the other variants' weights."
    )
    policy: dict[str, dict[str, Any]] = Field(description="One policy with its parameters: {linucb: {arm: logic}}.")
    explore: dict[str, dict[str, Any]] = Field(
        default={"greedy": {}}, description="One exploration with its parameters: {ucb: {alpha: 0.5, floor: 0.01}}."
    )
    retrieve: Retrieve | None = Field(
        None, description="What models propose to this variant's users, instead of the placement's `retrieve`."
    )

    @model_validator(mode="before")
    @classmethod
    def _allow_bare_names(cls, data: Any) -> Any:
        """Read ``policy: random`` as ``policy: {random: {}}``, and ``{random: }`` alike."""
        if isinstance(data, dict):
            data = dict(data)
            for key in ("policy", "explore"):
                value = data.get(key)
                if isinstance(value, str):
                    data[key] = {value: {}}
                elif isinstance(value, dict):
                    data[key] = {name: {} if params is None else params for name, params in value.items()}
        return data

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        wrong: dict[str, str] = {}
        for key, given, known, build in (
            ("policy", self.policy, POLICIES, policy_params),
            ("explore", self.explore, EXPLORATIONS, build_exploration),
        ):
            if len(given) != 1:
                wrong[key] = f"names {len(given)} of them ({', '.join(given) or 'none'}); exactly one is needed"
                continue
            ((name, params),) = given.items()
            if name not in known:
                wrong[f"{key}.{name}"] = f"does not exist{suggestion(name, known)}"
                continue
            try:
                build(name, params)
            except BanditError as error:
                wrong[f"{key}.{error.field}"] = str(error).removeprefix(f"{error.field}: ")
        if wrong:
            raise WrongKeys(wrong)
        return self

    @property
    def policy_name(self) -> str:
        """Name of the policy in the registry."""
        return next(iter(self.policy))

    @property
    def policy_params(self) -> dict[str, Any]:
        """Parameters of the policy, as written."""
        return next(iter(self.policy.values()))

    @property
    def explore_name(self) -> str:
        """Name of the exploration in the registry."""
        return next(iter(self.explore))

    @property
    def explore_params(self) -> dict[str, Any]:
        """Parameters of the exploration, as written."""
        return next(iter(self.explore.values()))

    @cached_property
    def model(self) -> str:
        """Name of the model: variants with equal policy and parameters share one."""
        return model_name(self.policy_name, self.policy_params)


class Experiment(Section):
    """An A/B test; a placement without one has a single variant."""

    salt: str = Field(
        "", max_length=64, description="Changes who is in which variant; keep it while an experiment runs."
    )
    variants: dict[Name, Variant] = Field(min_length=1)
    control: Name | None = Field(
        None, description="The variant that the others are compared with; by default the first one."
    )
    starts: AwareDatetime | None = Field(
        None,
        description="Until this moment, such as 2027-01-31T12:00:00Z, everybody is served by the control's policy. "
        "What variants' users did before is then taken out of the comparison (CUPED), which makes it sharper.",
    )
    aa: bool = Field(
        False, description="A/A: variants as they are, but all served by the control's policy; nothing may differ."
    )
    holdout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of all users who take part in no experiment, the same ones in each placement; the control's "
        "policy serves them.",
    )
    layer: Layer | None = Field(None, description="Absent: all users but the holdout take part.")
    guardrails: dict[GuardedMetric, Guardrail] = Field(
        default={}, description="What stops a variant by itself: {mute_rate: {worse_than_control_by: 0.01}}."
    )
    planned_impressions: float = Field(
        10_000.0,
        ge=100,
        allow_inf_nan=False,
        description="Impressions of a variant and the control together at which intervals are to be narrowest: "
        "the least number that would do. Say it before, not after, having seen results.",
    )

    @model_validator(mode="after")
    def _somebody_takes_part(self) -> Self:
        if sum(variant.weight for variant in self.variants.values()) <= 0:
            raise ValueError("variants: all weights are 0; at least one must be greater")
        wrong = {
            f"variants.{name}": "is what decisions say of users who take part in no variant; choose another name"
            for name in RESERVED
            if name in self.variants
        }
        if self.control is not None and self.control not in self.variants:
            wrong["control"] = f"{self.control!r} is no variant{suggestion(self.control, self.variants)}"
        if wrong:
            raise WrongKeys(wrong)
        return self

    @property
    def control_name(self) -> str:
        """The variant that the others are compared with."""
        return self.control or next(iter(self.variants))

    @property
    def starts_s(self) -> float:
        """``starts`` in seconds since the Unix epoch; 0: there is no pre-period."""
        return 0.0 if self.starts is None else self.starts.timestamp()


def default_experiment() -> Experiment:
    """What a placement has that names none: everybody is served by the default policy."""
    explore, params = exploration_of(DEFAULT)
    return Experiment(variants={DEFAULT: Variant(weight=1, policy={DEFAULT: {}}, explore={explore: dict(params)})})
