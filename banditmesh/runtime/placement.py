"""Section ``placements`` of ``mesh.yaml``: what is shown in a slot, and how it is chosen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from banditmesh.bandits.durations import Duration, Positive
from banditmesh.bandits.features import COMPUTED, FeatureSpec
from banditmesh.bandits.registry import policy_params
from banditmesh.bandits.rewards import RewardSpec
from banditmesh.lengths import MAX_CONTEXT_ENTRIES
from banditmesh.runtime.archive_options import Decisions
from banditmesh.runtime.placement_options import Cache, Filters
from banditmesh.runtime.retrieval_options import EVERYBODYS, Retrieve
from banditmesh.runtime.rule_options import Rules
from banditmesh.runtime.section import Section
from banditmesh.runtime.user_records import STATE_FEATURES
from banditmesh.runtime.validation import WrongKeys, suggestion
from banditmesh.runtime.variants import Experiment, default_experiment


class Mute(Section):
    """What a mute does."""

    slot_for: Duration = Field(3600.0, description="The slot stays empty for this user.")
    content_for: Duration = Field(30 * 86400.0, description="The muted content is not shown to this user.")
    service_for: Duration = Field(
        7 * 86400.0, description="No content of the muted content's service is shown to this user."
    )


def _chain(value: object) -> object:
    """Read ``fallback: popularity`` as a list of one, and ``none`` as an empty one."""
    if value == "none":
        return []
    return [value] if isinstance(value, str) else value


class Placement(Section):
    """A slot of the app."""

    sources: list[str] = Field(
        default=[],
        description="Whose candidates compete here: service/logic; or popularity, newest: what these models of the "
        "engine propose, of the same services. Of a content that two propose, the first source gets it. May be left "
        "out where `retrieve` proposes.",
    )
    retrieve: Retrieve | None = Field(None, description="What models of the engine propose beside the mappings.")
    eligible: Literal["used_services", "all"] = Field(
        "all",
        description="used_services: only services that the user's profile lists in `used_services`. A user whose "
        "profile does not say has none of the sources; the fallback may show such a user every service.",
    )
    features: FeatureSpec = Field(default_factory=FeatureSpec)
    rewards: RewardSpec = Field(default_factory=RewardSpec)
    join_window: Positive | None = Field(
        None, description="How long a reaction counts; at most join.window, which is the default."
    )
    mute: Mute = Field(default_factory=Mute)
    hide_clicked: bool = Field(True, description="Do not show again what the user clicked a short while ago.")
    fallback: Annotated[list[Literal["popularity", "newest"]], BeforeValidator(_chain)] = Field(
        ["popularity"],
        description="What fills the positions that the sources leave open: `popularity`, `newest`, `none`, or a list "
        "of the first two, asked one after the other.",
    )
    filters: Filters = Field(default_factory=Filters)
    cache: Cache | None = Field(None, description="Keep what a user's candidates were scored; absent: no cache.")
    rules: Rules = Field(
        default=[],
        description="What lists must be like, in their order: [{cap_per_service: {most: 2}}, {pin: {…}}], or "
        "{cap_per_service: {most: 2}} where each kind stands once.",
    )
    decisions: Decisions = Field(default_factory=Decisions)
    experiment: Experiment = Field(default_factory=default_experiment)

    def retrieve_of(self, variant: str) -> Retrieve | None:
        """What models propose to the users of a variant; None: nothing."""
        return self.experiment.variants[variant].retrieve or self.retrieve

    @model_validator(mode="after")
    def _somebody_proposes(self) -> Self:
        """A variant whose users would never have a candidate is a mistake."""
        if not self.sources:
            for name in self.experiment.variants:
                if self.retrieve_of(name) is None:
                    raise ValueError(
                        f"neither sources nor retrieve propose anything to variant {name!r}; name a service/logic in "
                        "sources, or a model in retrieve: {newest: {share: 20}}"
                    )
        return self

    @model_validator(mode="after")
    def _context_fits_a_request(self) -> Self:
        """More names than a request may have could never all be sent."""
        sent = [name for name in self.features.context if name not in COMPUTED]
        if len(sent) > MAX_CONTEXT_ENTRIES:
            raise WrongKeys(
                {"features.context": f"{len(sent)} names come with a request, which has at most {MAX_CONTEXT_ENTRIES}"}
            )
        return self

    @model_validator(mode="after")
    def _state_is_kept(self) -> Self:
        """A count that nobody keeps of users would never be a feature."""
        for name in self.features.state:
            if name not in STATE_FEATURES:
                raise WrongKeys({"features.state": f"{name!r} is not kept of users{suggestion(name, STATE_FEATURES)}"})
        return self

    @model_validator(mode="after")
    def _policies_take_the_rewards(self) -> Self:
        """A policy that cannot learn from what the placement pays would learn nothing, example by example."""
        least, most = self.rewards.range()
        wrong: dict[str, str] = {}
        for name, variant in self.experiment.variants.items():
            params = policy_params(variant.policy_name, variant.policy_params)
            low, high = params.rewards_within
            if least < low or most > high:
                other = "link: identity" if "link" in type(params).model_fields else "another policy"
                wrong[f"experiment.variants.{name}.policy.{variant.policy_name}"] = (
                    f"learns from rewards from {low:g} to {high:g}, and those of this placement go from {least:g} to "
                    f"{most:g} (weights are factors, up to rewards.cap); choose smaller rewards and a rewards.cap, or "
                    f"{other}"
                )
        if wrong:
            raise WrongKeys(wrong)
        return self

    def services(self, known: Iterable[str]) -> list[str]:
        """Whose contents it shows, out of the mesh's services: those of its mapped sources and those that models
        retrieve from; all if there is none."""
        mapped = dict.fromkeys(source.split("/", 1)[0] for source in self.sources if source not in EVERYBODYS)
        chosen = [each for name in self.experiment.variants if (each := self.retrieve_of(name)) is not None]
        everything = any(each.from_ is None for each in chosen) and not mapped
        wanted = [*mapped, *(service for each in chosen for service in each.from_ or ())]
        return list(dict.fromkeys([*wanted, *(known if everything or not wanted else ())]))
