"""``mesh.yaml``: what the mesh shows where, from which services, by which policy.

The one file that all five services read. Everything is validated before a service starts; an unknown key is an error
that names it. ``docs/mesh-yaml.md`` is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from banditmesh.bandits.als import AlsParams
from banditmesh.bandits.registry import (
    model_name,
    policy_params,
    stands_on,
)
from banditmesh.lengths import MAX_NAME_BYTES
from banditmesh.retrieval.user_vector import MOST_TOKEN_DIMENSIONS
from banditmesh.runtime.access_table import SERVICE, AccessTable
from banditmesh.runtime.archive_options import Archive
from banditmesh.runtime.config_file import read_config
from banditmesh.runtime.engine_options import Engine
from banditmesh.runtime.errors import ConfigurationError, printable
from banditmesh.runtime.experiment_options import RESERVED, Layer
from banditmesh.runtime.learning_options import Learning
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.retrieval_options import ALS, EVERYBODYS, Density, Vectors
from banditmesh.runtime.rule_checks import check_rules
from banditmesh.runtime.rule_options import capped
from banditmesh.runtime.section import Name
from banditmesh.runtime.section import Section as _Section
from banditmesh.runtime.service_options import Importing, Service
from banditmesh.runtime.stream_options import Join, Kafka, Token
from banditmesh.runtime.token import MAX_TOKEN_BYTES, MOST_LABELS, largest_token_bytes
from banditmesh.runtime.validation import MOST_LINES, WrongKeys, bounded, load_yaml, suggestion


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


_Meant = Callable[[str, Collection[str]], str]
"""What may have been meant by a name, among those that there are."""


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
        known = {f"{name}/{logic}": None for name, service in self.services.items() for logic in service.logics}
        every_source = (*known, *EVERYBODYS)
        wrong: dict[str, str] = {}

        def meant(name: str, among: Collection[str]) -> str:
            return suggestion(name, among) if len(wrong) < MOST_LINES else ""  # of the others nothing is shown

        longest_name = _longest_name(self.services)
        labels = MOST_LABELS if self.capped() else 0
        with_vector = {placement for placement, _ in self.densities()}
        for name, placement in self.placements.items():
            sources = f"placements.{name}.sources"
            before: set[str] = set()
            for position, source in enumerate(placement.sources):
                if source not in known and source not in EVERYBODYS:
                    wrong[f"{sources}.{position}"] = f"{source!r} is no service/logic{meant(source, every_source)}"
                elif source in before:
                    wrong[f"{sources}.{position}"] = f"{source!r} stands twice"
                before.add(source)
            try:
                if placement.rules:
                    shown = placement.services(self.services)
                    check_rules(placement.rules, shown, vectors=self.vectors is not None, meant=meant)
            except WrongKeys as error:
                wrong |= {f"placements.{name}.rules.{path}": text for path, text in error.problems.items()}
            wrong |= self._wrong_retrieval(name, placement, meant)
            twice = [each for each in EVERYBODYS if placement.fallback.count(each) > 1]
            if twice:
                wrong[f"placements.{name}.fallback"] = f"{twice[0]!r} stands twice"
            if placement.join_window is not None and placement.join_window > self.join.window:
                wrong[f"placements.{name}.join_window"] = (
                    f"{placement.join_window:g}s is longer than join.window, {self.join.window:g}s; "
                    "the joiner reads impressions just one join.window late"
                )
            largest = _largest_token_bytes(name, placement, longest_name, labels)
            if name in with_vector:
                largest += MOST_TOKEN_DIMENSIONS + 2
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
                        f"{service!r} is no service{meant(service, self.services)}"
                    )
        if wrong:
            raise WrongKeys(wrong)
        return self

    def _wrong_retrieval(self, name: str, placement: Placement, meant: _Meant) -> dict[str, str]:
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
                        f"{service!r} is no service{meant(service, self.services)}"
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
        order = {name: at for at, name in enumerate(self.placements)}
        layers: dict[str, list[tuple[Layer, str]]] = {}
        for name, placement in self.placements.items():
            if placement.experiment.layer is not None:
                layers.setdefault(placement.experiment.layer.name, []).append((placement.experiment.layer, name))
        for parts in layers.values():
            parts.sort(key=lambda part: part[0].users)
            for (before, one), (after, another) in _overlapping(parts):
                (theirs, other), (layer, name) = sorted(
                    [(before, one), (after, another)], key=lambda each: order[each[1]]
                )
                wrong[f"placements.{name}.experiment.layer.users"] = (
                    f"[{layer.users[0]:g}, {layer.users[1]:g}] overlaps with placement {other!r}, which has "
                    f"[{theirs.users[0]:g}, {theirs.users[1]:g}] of layer {layer.name!r}"
                )
        return wrong

    def capped(self) -> list[str]:
        """What some placement's rule caps the frequency of, beside contents: ``service``, names of attributes. Every
        impression is counted by these, whatever placement it was in."""
        return sorted({each for placement in self.placements.values() for each in capped(placement.rules)})

    def densities(self) -> Mapping[tuple[str, str], Density]:
        """Every density by placement and model's name: what the learner keeps sums of. Two that differ only in what
        does not matter to the sums are one: the first one's publishing counts."""
        return self._densities

    @cached_property
    def _densities(self) -> Mapping[tuple[str, str], Density]:
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

    def models(self) -> Mapping[tuple[str, str], Model]:
        """Return every model by placement and name, the fallback's included: what the learner's shards and the engine's
        snapshots are."""
        return self._models

    @cached_property
    def _models(self) -> Mapping[tuple[str, str], Model]:  # a part of a second with some thousand
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


def _longest_name(services: dict[str, Service]) -> str:
    """Of services and their logics; names are ASCII."""
    return max(chain(services, *(service.logics for service in services.values())), key=len)


def _largest_token_bytes(name: str, placement: Placement, longest_name: str, labels: int) -> int:
    experiment = placement.experiment
    models = [variant.model for variant in experiment.variants.values()]
    aside = RESERVED if experiment.holdout or experiment.layer is not None else ()
    names = [longest_name, *experiment.variants, *aside]
    return largest_token_bytes(name, names, models, placement.features.most_features, labels)


def _overlapping(parts: list[tuple[Layer, str]]) -> Iterator[tuple[tuple[Layer, str], tuple[Layer, str]]]:
    """Each part of a layer that begins before an earlier one ends, with that one; ``parts``: by their beginnings."""
    furthest = parts[0]
    for part in parts[1:]:
        if part[0].users[0] < furthest[0].users[1]:
            yield furthest, part
        if part[0].users[1] > furthest[0].users[1]:
            furthest = part


def load_mesh(path: str | Path, text: str | None = None) -> Mesh:
    """Read and validate a ``mesh.yaml``; ``text``: what it says, where somebody has read it already.

    Raises:
        ConfigurationError: The file is missing, is no YAML, or does not validate; the message lists every key that is
        wrong, its value and
            what would be right.
    """
    return parse_mesh(read_config(Path(path)) if text is None else text, origin=str(path))


def parse_mesh(text: str, *, origin: str = "mesh.yaml") -> Mesh:
    """Validate the text of a ``mesh.yaml``; see :func:`load_mesh`. What is in effect and what was read last is
    remembered: a service that follows the file has it validated beside its calls, and has it then."""
    return _parsed(text, origin)


@lru_cache(maxsize=2)
def _parsed(text: str, origin: str) -> Mesh:
    try:
        data = load_yaml(text)
        if not isinstance(data, dict):
            raise ConfigurationError(f"{origin}: must be a mapping with `services` and `placements`")
        return Mesh.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(f"{origin} is not valid:", bounded(error, Mesh)) from error
    except UnicodeEncodeError as error:  # by pydantic, where it tells of such a value
        wrong = printable(error.object[error.start : error.end])
        raise ConfigurationError(f"{origin} is not valid: {wrong} stands in it, which is no character") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that looks like one and is none
        raise ConfigurationError(f"{origin}: is not YAML: {error}") from error
    except RecursionError:
        raise ConfigurationError(f"{origin}: is nested too deeply") from None
