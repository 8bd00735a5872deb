"""``mesh.yaml``: what the mesh shows where, from which services, by which policy.

The one file that all five services read. Everything is validated before a service starts; an unknown key is an error
that names it. ``docs/mesh-yaml.md`` is the reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import yaml
from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError, model_validator

from banditmesh.bandits.als import AlsParams
from banditmesh.bandits.durations import Duration, Positive
from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.features import FeatureSpec
from banditmesh.bandits.registry import (
    DEFAULT,
    EXPLORATIONS,
    POLICIES,
    build_exploration,
    exploration_of,
    model_name,
    policy_params,
    stands_on,
)
from banditmesh.bandits.rewards import RewardSpec
from banditmesh.retrieval.user_vector import MOST_TOKEN_DIMENSIONS
from banditmesh.runtime.access_table import SERVICE, AccessTable
from banditmesh.runtime.archive_options import Archive, Decisions
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.experiment_options import RESERVED, GuardedMetric, Guardrail, Layer
from banditmesh.runtime.learning_options import ValidationLimits
from banditmesh.runtime.limits import MAX_NAME_BYTES
from banditmesh.runtime.placement_options import Cache, Filters
from banditmesh.runtime.retrieval_options import ALS, EVERYBODYS, Density, Retrieve, Vectors
from banditmesh.runtime.rule_options import Rules, capped, check_rules
from banditmesh.runtime.section import Name
from banditmesh.runtime.section import Section as _Section
from banditmesh.runtime.service_options import Importing, Service
from banditmesh.runtime.token import MAX_TOKEN_BYTES, MOST_LABELS, largest_token_bytes
from banditmesh.runtime.user_records import STATE_FEATURES
from banditmesh.runtime.validation import StrictLoader, WrongKeys, problems, suggestion


class Mute(_Section):
    """What a mute does."""

    slot_for: Duration = Field(3600.0, description="The slot stays empty for this user.")
    content_for: Duration = Field(30 * 86400.0, description="The muted content is not shown to this user.")
    service_for: Duration = Field(
        7 * 86400.0, description="No content of the muted content's service is shown to this user."
    )


class Variant(_Section):
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

    @property
    def model(self) -> str:
        """Name of the model: variants with equal policy and parameters share one."""
        return model_name(self.policy_name, self.policy_params)


class Experiment(_Section):
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


def _default_experiment() -> Experiment:
    explore, params = exploration_of(DEFAULT)
    return Experiment(variants={DEFAULT: Variant(weight=1, policy={DEFAULT: {}}, explore={explore: dict(params)})})


def _chain(value: object) -> object:
    """Read ``fallback: popularity`` as a list of one, and ``none`` as an empty one."""
    if value == "none":
        return []
    return [value] if isinstance(value, str) else value


class Placement(_Section):
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
    experiment: Experiment = Field(default_factory=_default_experiment)

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
            low, high = policy_params(variant.policy_name, variant.policy_params).rewards_within
            if least < low or most > high:
                wrong[f"experiment.variants.{name}.policy.{variant.policy_name}"] = (
                    f"learns from rewards from {low:g} to {high:g}, and those of this placement go from {least:g} to "
                    f"{most:g} (weights are factors, up to rewards.cap); choose smaller rewards and a rewards.cap, or "
                    "link: identity"
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


class Token(_Section):
    """The impression token."""

    max_age: Positive = Field(3600.0, description="Events of older decisions are refused.")


class Kafka(_Section):
    """Topics."""

    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,128}$")] = Field(
        "", description="Put before each topic's name."
    )
    partitions: int = Field(4, ge=1, le=4096, description="Of each topic; only read when topics are created.")
    replication: int = Field(1, ge=1, le=9, description="Of each topic; only read when topics are created.")


class Join(_Section):
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


class Learning(_Section):
    """The learner."""

    snapshot_every: Positive = Field(30.0, description="How often a model that has learned something is published.")
    batch: int = Field(1024, ge=1, le=100_000, description="Examples that one learning step takes at most.")
    stall_after: Positive = Field(60.0, description="A partition that is silent this long is no longer waited for.")
    validation: ValidationLimits = Field(default_factory=ValidationLimits)


class Engine(_Section):
    """The engine."""

    redis_timeout: Positive = Field(0.05, description="After this long without an answer the fallback is shown.")
    max_batch: int = Field(128, ge=1, le=512, description="Waiting requests that are taken together at most.")
    max_waiting: int = Field(
        1024,
        ge=512,
        le=100_000,
        description="Requests that wait at most; a call that would be one too many gets RESOURCE_EXHAUSTED.",
    )
    catalog_size: int = Field(1_000_000, ge=1000, le=100_000_000, description="Contents that an engine keeps at most.")
    catalog_mib: int = Field(
        1024, ge=16, le=1_048_576, description="MiB that these contents may take, beside their features."
    )
    model_poll: Positive = Field(10.0, description="How often the engine looks for a newer snapshot.")
    fallback_contents: int = Field(
        100, ge=1, le=10_000, description="How many of the most popular contents the fallback chooses from."
    )


class Model(NamedTuple):
    """A model of a placement.

    Attributes:
        policy: Its name in the registry.
        params: Its parameters, as written.
        variants: The variants that score with it; none: only a source does.
    """

    policy: str
    params: dict[str, Any]
    variants: tuple[str, ...] = ()


POPULARITY: Final = Model("popularity", {})
"""What the retriever of that name proposes by."""


class Mesh(_Section):
    """The whole of ``mesh.yaml``."""

    services: dict[Name, Service] = Field(min_length=1)
    placements: dict[Name, Placement] = Field(min_length=1)
    profiles: dict[str, Literal["text", "number", "list"]] = Field(
        default={},
        description="Types of profile fields, for all files; of the others the files themselves show it. A postal code "
        "is a text although it looks like a number: {postal_code: text}.",
    )
    token: Token = Field(default_factory=Token)
    kafka: Kafka = Field(default_factory=Kafka)
    join: Join = Field(default_factory=Join)
    learning: Learning = Field(default_factory=Learning)
    archive: Archive = Field(default_factory=Archive)
    vectors: Vectors | None = Field(None, description="Vectors of contents; absent: there are none.")
    importing: Importing = Field(default_factory=Importing)
    engine: Engine = Field(default_factory=Engine)
    access: AccessTable | None = Field(None, description="Who may call what; absent: everybody everything.")

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        known = [f"{name}/{logic}" for name, service in self.services.items() for logic in service.logics]
        wrong: dict[str, str] = {}
        for name, placement in self.placements.items():
            sources = f"placements.{name}.sources"
            for position, source in enumerate(placement.sources):
                if source not in known and source not in EVERYBODYS:
                    wrong[f"{sources}.{position}"] = (
                        f"{source!r} is no service/logic{suggestion(source, [*known, *EVERYBODYS])}"
                    )
                elif source in placement.sources[:position]:
                    wrong[f"{sources}.{position}"] = f"{source!r} stands twice"
            try:
                check_rules(placement.rules, placement.services(self.services), vectors=self.vectors is not None)
            except WrongKeys as error:
                wrong |= {f"placements.{name}.rules.{path}": text for path, text in error.problems.items()}
            wrong |= self._wrong_retrieval(name, placement)
            twice = [each for each in EVERYBODYS if placement.fallback.count(each) > 1]
            if twice:
                wrong[f"placements.{name}.fallback"] = f"{twice[0]!r} stands twice"
            if placement.join_window is not None and placement.join_window > self.join.window:
                wrong[f"placements.{name}.join_window"] = (
                    f"{placement.join_window:g}s is longer than join.window, {self.join.window:g}s; "
                    "the joiner reads impressions just one join.window late"
                )
            largest = self._largest_token_bytes(name, placement)
            if largest > MAX_TOKEN_BYTES:
                wrong[f"placements.{name}.features"] = (
                    f"{placement.features.most_features} features a decision make impression tokens of up to {largest} "
                    f"bytes, and {MAX_TOKEN_BYTES} are allowed; leave out crosses, or let fewer values count in "
                    "multi_valued"
                )
        wrong.update(self._overlapping_layers())
        wrong.update(self._wrong_profiles())
        for name, caller in (self.access.callers if self.access is not None else {}).items():
            for position, role in enumerate(caller.roles):
                service = role.removeprefix(f"{SERVICE}:")
                if service != role and service not in self.services:
                    wrong[f"access.callers.{name}.roles.{position}"] = (
                        f"{service!r} is no service{suggestion(service, self.services)}"
                    )
        if wrong:
            raise WrongKeys(wrong)
        return self

    def _wrong_retrieval(self, name: str, placement: Placement) -> dict[str, str]:
        wrong: dict[str, str] = {}
        users = {
            each.density.user: None
            for each in map(placement.retrieve_of, placement.experiment.variants)
            if each is not None and each.density is not None
        }
        if len(users) > 1:
            wrong[f"placements.{name}.experiment"] = (
                "variants have different retrieve.density.user; one user has one vector, which the learner sees: let "
                "them be equal"
            )
        of_variants = {
            f"experiment.variants.{key}.": each.retrieve for key, each in placement.experiment.variants.items()
        }
        for at, retrieve in {"": placement.retrieve, **of_variants}.items():
            for position, service in enumerate((retrieve and retrieve.from_) or []):
                if service not in self.services:
                    wrong[f"placements.{name}.{at}retrieve.from.{position}"] = (
                        f"{service!r} is no service{suggestion(service, self.services)}"
                    )
            for model in retrieve.models() if retrieve else ():
                if model == "density" and self.vectors is None:
                    wrong[f"placements.{name}.{at}retrieve.density"] = (
                        "compares users by the vectors of contents, and `vectors` is missing; say vectors: "
                        "{dimensions: 64}"
                    )
                if model in placement.sources:
                    wrong[f"placements.{name}.{at}retrieve.{model}"] = (
                        f"{model!r} stands in sources too; leave it out there"
                    )
        return wrong

    def _wrong_profiles(self) -> dict[str, str]:
        """Types that no file of profiles can have."""
        wrong: dict[str, str] = {}
        for field in self.profiles:
            if not 1 <= len(field.encode(errors="replace")) <= MAX_NAME_BYTES:
                wrong[f"profiles.{field[:80]}"] = f"the name of a field has 1 to {MAX_NAME_BYTES} bytes"
        if "user_id" in self.profiles:
            wrong["profiles.user_id"] = "says whose profile it is and is no field of it; leave it out"
        if self.profiles.get("used_services", "list") != "list":
            wrong["profiles.used_services"] = f"is always a list, never a {self.profiles['used_services']}"
        return wrong

    def _overlapping_layers(self) -> dict[str, str]:
        """Placements whose experiments would share users of a layer."""
        wrong: dict[str, str] = {}
        before: dict[str, list[tuple[str, Layer]]] = {}
        for name, placement in self.placements.items():
            layer = placement.experiment.layer
            if layer is None:
                continue
            for other, theirs in before.setdefault(layer.name, []):
                if max(layer.users[0], theirs.users[0]) < min(layer.users[1], theirs.users[1]):
                    wrong[f"placements.{name}.experiment.layer.users"] = (
                        f"[{layer.users[0]:g}, {layer.users[1]:g}] overlaps with placement {other!r}, which has "
                        f"[{theirs.users[0]:g}, {theirs.users[1]:g}] of layer {layer.name!r}"
                    )
            before[layer.name].append((name, layer))
        return wrong

    def _largest_token_bytes(self, name: str, placement: Placement) -> int:
        logics = [logic for service in self.services.values() for logic in service.logics]
        variants = placement.experiment.variants
        models = [variant.model for variant in variants.values()]
        labels = MOST_LABELS if self.capped() else 0
        experiment = placement.experiment
        aside = RESERVED if experiment.holdout or experiment.layer is not None else ()
        names = [*self.services, *logics, *variants, *aside]
        largest = largest_token_bytes(name, names, models, placement.features.most_features, labels)
        has_vector = any(each == name for each, _ in self.densities())
        return largest + (MOST_TOKEN_DIMENSIONS + 2 if has_vector else 0)

    def capped(self) -> list[str]:
        """What some placement's rule caps the frequency of, beside contents: ``service``, names of attributes. Every
        impression is counted by these, whatever placement it was in."""
        return sorted({each for placement in self.placements.values() for each in capped(placement.rules)})

    def densities(self) -> dict[tuple[str, str], Density]:
        """Every density by placement and model's name: what the learner keeps sums of. Two that differ only in what
        does not matter to the sums are one: the first one's publishing counts."""
        found: dict[tuple[str, str], Density] = {}
        for name, placement in self.placements.items():
            for variant in placement.experiment.variants:
                retrieve = placement.retrieve_of(variant)
                if retrieve is not None and retrieve.density is not None and self.vectors is not None:
                    params = retrieve.density.params(self.vectors.dimensions)
                    found.setdefault((name, params.model), retrieve.density)
        return found

    def remembers(self) -> int:
        """For how many of the contents that a user reacted to last the models need what the user did; 0: for none."""
        tastes = [policy_params(ALS, each.params) for each in self.models().values() if each.policy == ALS]
        clicks = [density.user.clicks for density in self.densities().values()]
        return max([*clicks, *(each.feedback for each in tastes if isinstance(each, AlsParams))], default=0)

    def join_window_s(self, placement: str) -> float:
        """Return the join window of a placement in seconds; of one that is not known (any more): ``join.window``."""
        found = self.placements.get(placement)
        return self.join.window if found is None or found.join_window is None else found.join_window

    def models(self) -> dict[tuple[str, str], Model]:
        """Return every model by placement and name, the fallback's included: what the learner's shards and the engine's
        snapshots are."""
        found: dict[tuple[str, str], Model] = {}
        for placement, config in self.placements.items():
            for name, variant in config.experiment.variants.items():
                before = found.get((placement, variant.model))
                variants = (*before.variants, name) if before else (name,)
                found[placement, variant.model] = Model(variant.policy_name, variant.policy_params, variants)
                for policy, params in stands_on(variant.policy_name, variant.policy_params).items():
                    found.setdefault((placement, model_name(policy, params)), Model(policy, dict(params)))
            retrieves = [config.retrieve_of(name) for name in config.experiment.variants]
            if POPULARITY.policy in (*config.fallback, *config.sources):
                found.setdefault((placement, model_name(POPULARITY.policy, POPULARITY.params)), POPULARITY)
            for each in retrieves:
                if each is not None and each.popularity is not None:
                    popular = each.popularity
                    found.setdefault((placement, popular.model_name), Model(POPULARITY.policy, dict(popular.params)))
                if each is not None and each.als is not None:
                    found.setdefault((placement, each.als.model_name), Model(ALS, each.als.model))
        return found


def load_mesh(path: str | Path, text: str | None = None) -> Mesh:
    """Read and validate a ``mesh.yaml``; ``text``: what it says, where somebody has read it already.

    Raises:
        ConfigurationError: The file is missing, is no YAML, or does not validate; the message lists every key that is
        wrong, its value and
            what would be right.
    """
    if text is not None:
        return parse_mesh(text, origin=str(path))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error}", hint="name the file with --config or BANDITMESH_CONFIG"
        ) from error
    return parse_mesh(text, origin=str(path))


def parse_mesh(text: str, *, origin: str = "mesh.yaml") -> Mesh:
    """Validate the text of a ``mesh.yaml``; see :func:`load_mesh`."""
    try:
        data = yaml.load(text, StrictLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that looks like one and is none
        raise ConfigurationError(f"{origin}: is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{origin}: must be a mapping with `services` and `placements`")
    try:
        return Mesh.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(f"{origin} is not valid:", tuple(problems(error, Mesh))) from error
