"""A placement of ``mesh.yaml``, made ready for serving: everything that does not change from request to request is
worked out here, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.bandits.exploration.base import Exploration
from banditmesh.bandits.features import Featurizer
from banditmesh.bandits.registry import build_exploration
from banditmesh.contracts.crs_engine.v1.crs_engine_pb2 import SelectedContent
from banditmesh.contracts.events.v1.events_pb2 import Decision
from banditmesh.runtime import keys
from banditmesh.runtime.mesh import Mesh, Placement
from services.crs_engine.experiments import Assignment
from services.crs_engine.live import LiveVersions
from services.crs_engine.user_features import UserFeatures


@dataclass(frozen=True)
class Source:
    """A logic of a service that proposes candidates."""

    service: str
    logic: str

    @property
    def name(self) -> str:
        """``service/logic``."""
        return f"{self.service}/{self.logic}"


@dataclass(frozen=True)
class CompiledVariant:
    """A variant of the placement's experiment."""

    name: str
    model: str
    exploration: Exploration


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the live values of a user of this placement are in Redis, for one :class:`LiveVersions`."""

    live: LiveVersions
    sources: np.ndarray[tuple[int], np.dtype[np.int64]]
    """``int64[n_live]``: positions in ``CompiledPlacement.sources``, of those that have a live version."""
    versions: np.ndarray[tuple[int], np.dtype[np.uint32]]
    """``uint32[n_live]``."""
    tails: list[str]
    profile_slot: int
    profile_version: int
    """-1: no profiles were ever imported."""

    def keys(self, user_id: str) -> list[str]:
        """The user's keys: candidates of each live source, profile, state."""
        return keys.of_user(keys.user_tag(user_id), self.tails, self.profile_slot)


class CompiledPlacement:
    """See the module.

    Attributes:
        sources: In the placement's order: of a content that two propose, the first one gets it.
        logic_keys, service_keys: uint64[n_sources + 1]; the last one, which position -1 reaches, stands for the
            fallback.
        config: What ``mesh.yaml`` says of it.
        variants: In the order of ``assignment.names``.
        featurizer: Of the placement; its content side is in the catalog at position ``catalog_block``.
    """

    def __init__(self, name: str, placement: Placement, catalog_block: int) -> None:
        self.name = name
        self.key = np.uint64(hashing.key64(name))
        self.config = placement
        self.catalog_block = catalog_block
        self.sources = [Source(*source.split("/", 1)) for source in placement.sources]
        self.logic_keys = np.array([*(hashing.logic_key(s.service, s.logic) for s in self.sources), 0], np.uint64)
        self.service_keys = np.array([*(hashing.service_key(s.service) for s in self.sources), 0], np.uint64)
        variants = placement.experiment.variants
        self.assignment = Assignment(placement.experiment.salt, {each: variants[each].weight for each in variants})
        self.variants = [
            CompiledVariant(each, variant.model, build_exploration(variant.explore_name, variant.explore_params))
            for each, variant in variants.items()
        ]
        self.spec = placement.features
        self.featurizer = Featurizer(self.spec, strict=False)
        self.users = UserFeatures(name, self.spec, [source.service for source in self.sources])
        self.logic_column = (
            self.spec.columns(self.spec.content)["logic"].start if "logic" in self.spec.content else None
        )
        logics = [*(source.logic for source in self.sources), ""]
        self.logic_ids = np.array([hashing.categorical_id("logic", logic) for logic in logics], np.uint32)
        self.logic_values = np.array([float(bool(logic)) for logic in logics], np.float32)
        self.decided_logic = [Decision(logic=logic).SerializeToString() for logic in logics]
        self.shown_logic = [SelectedContent(logic=logic).SerializeToString() for logic in logics]
        self._layout: Layout | None = None

    def layout(self, live: LiveVersions) -> Layout:
        """The layout for these versions; worked out when they have changed."""
        if self._layout is None or self._layout.live is not live:
            self._layout = self._lay_out(live)
        return self._layout

    def _lay_out(self, live: LiveVersions) -> Layout:
        found = [
            (at, live.versions[source.name]) for at, source in enumerate(self.sources) if source.name in live.versions
        ]
        profile = live.versions.get(keys.PROFILES)
        return Layout(
            live,
            np.array([at for at, _ in found], np.int64),
            np.array([version.version for _, version in found], np.uint32),
            [keys.candidates_tail(self.sources[at].name, version.slot) for at, version in found],
            profile.slot if profile else 0,
            profile.version if profile else -1,
        )


def compile_placements(mesh: Mesh) -> dict[str, CompiledPlacement]:
    """All placements of the mesh, ready for serving, by name."""
    return {
        name: CompiledPlacement(name, placement, block)
        for block, (name, placement) in enumerate(mesh.placements.items())
    }


def featurizers(placements: dict[str, CompiledPlacement]) -> Sequence[Featurizer]:
    """What the catalog hashes contents for; the positions are the placements' ``catalog_block``."""
    return [placement.featurizer for placement in placements.values()]
