"""A placement of ``mesh.yaml``, made ready for serving: everything that does not change from request to request is
worked out here, once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.bandits.als import Als
from banditmesh.bandits.blend import Blend
from banditmesh.bandits.exploration.base import Exploration
from banditmesh.bandits.exploration.zipf import Zipf
from banditmesh.bandits.features import COMPUTED, Featurizer
from banditmesh.bandits.registry import build_exploration
from banditmesh.contracts.crs_engine.v1.crs_engine_pb2 import SelectedContent
from banditmesh.contracts.events.v1.events_pb2 import Decision
from banditmesh.runtime import keys
from banditmesh.runtime.experiments import digest, plan_of, weights_in_force
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.retrieval_options import EVERYBODYS, MOST_RETRIEVED, RETRIEVERS, Retrieve, Retrieved
from services.crs_engine.experiments import Assignment, Part
from services.crs_engine.live import LiveVersions
from services.crs_engine.local_time import TIME_ZONE
from services.crs_engine.user_features import UserFeatures


@dataclass(frozen=True)
class Source:
    """Where a candidate can come from.

    Attributes:
        service: Whose content it is.
        logic: The service's logic, or the retriever; empty for a fallback's.
        mapped: Whether the service maps users to contents; if not, a retriever proposes them.
    """

    service: str
    logic: str
    mapped: bool = True

    @property
    def name(self) -> str:
        """``service/logic``."""
        return f"{self.service}/{self.logic}"


@dataclass(frozen=True)
class Fallback:
    """A link in the chain that fills the positions which the sources leave open.

    Attributes:
        retriever: Who proposes.
        first_source: The position in ``CompiledPlacement.sources`` of its contents of the first service.
        exploration: How what it proposes is drawn from.
    """

    retriever: str
    first_source: int
    exploration: Exploration


@dataclass(frozen=True, eq=False)
class Retrieval:
    """What a model proposes to the users of a variant.

    Attributes:
        share: Contents for a user at most.
        services: bool[n_services], of which of the placement's services.
        options: What ``mesh.yaml`` says of it; None: it stands in ``sources``, where nothing can be said.
    """

    share: int
    services: np.ndarray[tuple[int], np.dtype[np.bool_]]
    options: Retrieved | None = None


@dataclass(frozen=True)
class CompiledVariant:
    """A variant of the placement's experiment. ``retrievals``: by the retriever's name."""

    name: str
    model: str
    exploration: Exploration
    retrievals: Mapping[str, Retrieval]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the live values of a user of this placement are in Redis, for one :class:`LiveVersions`."""

    live: LiveVersions
    sources: np.ndarray[tuple[int], np.dtype[np.int64]]
    """``int64[n_live]``: positions in ``CompiledPlacement.sources``, of those that have a live version."""
    versions: np.ndarray[tuple[int], np.dtype[np.uint32]]
    """``uint32[n_live]``."""
    around_tag: list[tuple[str, str]]
    """See :func:`keys.around_tag`."""
    profile_version: int
    """-1: no profiles were ever imported."""

    def keys(self, user_id: str) -> list[str]:
        """The user's keys: candidates of each live source, what is cached if anything is, profile, state."""
        return keys.of_user(keys.user_tag(user_id), self.around_tag)


class CompiledPlacement:
    """See the module.

    Attributes:
        services: Whose contents are shown: the services of the mapped sources and those that models retrieve from; of a
            placement without any, all.
        shown_services: uint64[n_services], their keys.
        sources: In the placement's order: of a content that two propose, the first one gets it. A retriever is one
            source for each service, one after the other; so is each fallback, at the end.
        retrieved_from: The first source of each retriever that proposes to some variant, by its name.
        fallbacks: In the order in which they are asked.
        logic_keys, service_keys: uint64[n_sources].
        service_numbers: int64[n_sources], positions in ``services``.
        of_fallback: bool[n_sources], whether a fallback proposes it.
        config: What ``mesh.yaml`` says of it.
        assignment: Who is in which variant; another one once `take` was told of other stops.
        variants: In the order of ``assignment.names``, as they are served now: before ``starts``, and in A/A mode, all
            by the control's policy.
        plan: Names what selections are counted for; empty before ``starts``.
        models: The models that some variant is or will be served by.
        content_columns: The first column of each field of the candidate's side, by its name.
        featurizer: The placement's; its content side is in the catalog at position ``catalog_block``.
    """

    def __init__(
        self, name: str, placement: Placement, services: Sequence[str], catalog_block: int, dimensions: int = 0
    ) -> None:
        """``services``: all services of the mesh; ``dimensions``: of contents' vectors."""
        self.dimensions = dimensions
        densities = [each.density for each in map(placement.retrieve_of, placement.experiment.variants) if each]
        self.user_vector = next((each.user for each in densities if each is not None), None)
        """How users' vectors are made; None: no model of the placement needs them."""
        self.name = name
        self.large_tokens = 0
        """Tokens that came near the limit, ever."""
        self.key = np.uint64(hashing.key64(name))
        self.config = placement
        self.catalog_block = catalog_block
        mapping = dict.fromkeys(source.split("/", 1)[0] for source in placement.sources if source not in EVERYBODYS)
        retrieve = {name: placement.retrieve_of(name) for name in placement.experiment.variants}
        chosen = [each for each in retrieve.values() if each is not None]
        self.services = placement.services(services)
        self.shown_services = np.array([hashing.service_key(service) for service in self.services], np.uint64)
        self.sources: list[Source] = []
        self.retrieved_from: dict[str, int] = {}
        for source in placement.sources:
            if source in RETRIEVERS:
                self.retrieved_from[source] = self._add_retriever(source)
            else:
                service, logic = source.split("/", 1)
                self.sources.append(Source(service, logic))
        retrieved = {name for each in chosen for name in each.models()}
        for name in RETRIEVERS:
            if name in retrieved:
                self.retrieved_from[name] = self._add_retriever(name)
        self.fallbacks = [Fallback(each, self._add_retriever(""), Zipf()) for each in placement.fallback]
        self.retrievers = {*self.retrieved_from, *placement.fallback}
        self.logic_keys = np.array(
            [hashing.logic_key(s.service, s.logic) if s.logic else 0 for s in self.sources], np.uint64
        )
        self.service_keys = np.array([hashing.service_key(s.service) for s in self.sources], np.uint64)
        self.service_numbers = np.array([self.services.index(s.service) for s in self.sources])
        self.of_fallback = np.array([not s.logic for s in self.sources])
        self._apart = [
            CompiledVariant(
                each,
                variant.model,
                build_exploration(variant.explore_name, variant.explore_params),
                self._retrievals(retrieve[each], list(mapping)),
            )
            for each, variant in placement.experiment.variants.items()
        ]
        self.models = list(dict.fromkeys(each.model for each in self._apart))
        self.take((), 0.0)
        told = placement.model_dump_json(include={"sources", "retrieve", "eligible", "features", "experiment"})
        # Entries name their sources by position, and where `sources` names none, services of the mesh give them.
        self.cache_digest = hashing.key64(f"{told} {self.sources}")
        """What a cached entry was made by: of another configuration it means nothing."""
        names = {variant.policy_name for variant in placement.experiment.variants.values()}
        self.uses_feedback = bool(names & {Als.name, Blend.name})
        """Whether a policy looks at what users did of late."""
        computed = {*COMPUTED} & {*placement.features.context}
        self.requested = sorted({*placement.features.context} - computed | ({TIME_ZONE} if computed else set()))
        """What of a request's context scores depend on."""
        self.uses_said = bool(placement.features.candidate)
        """Whether a feature is what a candidate's source says of it."""
        self.spec = placement.features
        self.featurizer = Featurizer(self.spec, strict=False)
        asked = self.sources if placement.eligible == "used_services" else []
        self.users = UserFeatures(self.spec, [source.service for source in asked])
        columns = self.spec.columns(self.spec.own)
        self.content_columns = {name: columns[name].start for name in self.spec.own}
        logics = [source.logic for source in self.sources]
        self.logic_ids = np.array([hashing.categorical_id("logic", logic) for logic in logics], np.uint32)
        self.logic_values = np.array([float(bool(logic)) for logic in logics], np.float32)
        self.decided_logic = [Decision(logic=logic).SerializeToString() for logic in logics]
        self.shown_logic = [SelectedContent(logic=logic).SerializeToString() for logic in logics]
        self._layout: Layout | None = None

    def take(self, stopped: Collection[str], now_s: float) -> None:
        """Assign and serve by what is in force now. ``stopped``: names of variants that get nobody."""
        experiment = self.config.experiment
        layer = experiment.layer
        self.assignment = Assignment(
            experiment.salt,
            weights_in_force(experiment, stopped),
            holdout=experiment.holdout,
            part=None if layer is None else Part(layer.name, *layer.users),
        )
        control = self._apart[list(experiment.variants).index(experiment.control_name)]
        alike = experiment.aa or now_s < experiment.starts_s
        self.plan = "" if now_s < experiment.starts_s else digest(plan_of(self.config, stopped))
        own = {} if alike else {each.name: each for each in self._apart}
        self.variants = [own.get(name) or replace(control, name=name) for name in self.assignment.names]

    def _add_retriever(self, logic: str) -> int:
        """Sources for a retriever's contents, one for each service; returns the position of the first."""
        first = len(self.sources)
        self.sources += [Source(service, logic, mapped=False) for service in self.services]
        return first

    def _retrievals(self, retrieve: Retrieve | None, mapped: Sequence[str]) -> dict[str, Retrieval]:
        everywhere = np.ones(len(self.services), np.bool_)
        found = {name: Retrieval(MOST_RETRIEVED, everywhere) for name in self.config.sources if name in EVERYBODYS}
        if retrieve is not None:
            names = retrieve.from_ or mapped or self.services
            there = np.array([service in names for service in self.services], np.bool_)
            found |= {name: Retrieval(options.share, there, options) for name, options in retrieve.models().items()}
        return found

    @property
    def retrievals(self) -> list[Mapping[str, Retrieval]]:
        """Of each variant of ``mesh.yaml``."""
        return [each.retrievals for each in self._apart]

    def share(self, retriever: str) -> int:
        """Contents that a retriever proposes to any user at most, as one that ``retrieve`` names; 0: it does not."""
        own = (variant.retrievals.get(retriever) for variant in self._apart)
        return max((each.share for each in own if each is not None and each.options is not None), default=0)

    def layout(self, live: LiveVersions) -> Layout:
        """The layout for these versions; worked out when they have changed."""
        if self._layout is None or self._layout.live is not live:
            self._layout = self._lay_out(live)
        return self._layout

    def _lay_out(self, live: LiveVersions) -> Layout:
        found = [
            (at, live.versions[source.name])
            for at, source in enumerate(self.sources)
            if source.mapped and source.name in live.versions
        ]
        profile = live.versions.get(keys.PROFILES)
        return Layout(
            live,
            np.array([at for at, _ in found], np.int64),
            np.array([version.version for _, version in found], np.uint32),
            keys.around_tag(
                [
                    *[keys.candidates_tail(self.sources[at].name, version.slot) for at, version in found],
                    *([] if self.config.cache is None else [keys.ranked_tail(self.name)]),
                ],
                profile.slot if profile else 0,
            ),
            profile.version if profile else -1,
        )


def compile_placements(mesh: Mesh) -> dict[str, CompiledPlacement]:
    """All placements of the mesh, ready for serving, by name."""
    services = list(mesh.services)
    return {
        name: CompiledPlacement(name, placement, services, block, mesh.vectors.dimensions if mesh.vectors else 0)
        for block, (name, placement) in enumerate(mesh.placements.items())
    }


def retrieved_services(placements: Mapping[str, CompiledPlacement]) -> list[str]:
    """The services that some ``retrieve`` proposes contents of: all of their live contents are wanted."""
    found: dict[str, None] = {}
    for placement in placements.values():
        for retrievals in placement.retrievals:
            for each in retrievals.values():
                if each.options is not None:
                    found |= dict.fromkeys(np.array(placement.services)[each.services].tolist())
    return sorted(found)


def featurizers(placements: dict[str, CompiledPlacement]) -> Sequence[Featurizer]:
    """What the catalog hashes contents for; the positions are the placements' ``catalog_block``."""
    return [placement.featurizer for placement in placements.values()]
