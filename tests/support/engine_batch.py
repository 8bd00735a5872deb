"""Groups, users and pools by hand, for the engine's stages: everything in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import CollectorRegistry

from banditmesh.bandits import hashing
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.runtime import packing
from banditmesh.runtime.mesh import Mesh, parse_mesh
from banditmesh.runtime.user_record import UserRecord
from services.crs_engine.catalog import Catalog, Fetched
from services.crs_engine.compiled_placement import CompiledPlacement, compile_placements, featurizers
from services.crs_engine.decide import Decider
from services.crs_engine.engine import group_requests
from services.crs_engine.live import LiveVersions
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import LoadedModel
from services.crs_engine.pipeline import sources
from services.crs_engine.pipeline.batch import Group, Pool, SelectionRequest, Users
from services.crs_engine.pipeline.filters.base import View
from services.crs_engine.popular_contents import NOTHING_POPULAR, PopularContents
from tests.support.engine_world import MESH
from tests.support.user_records import reacted

NOW_S = 1_700_000_000.0


@dataclass
class FixedModels:
    """The models as they were put here: what :class:`services.crs_engine.models.Models` answers, without a store."""

    loaded: Mapping[str, LoadedModel]
    fallback: PopularContents = NOTHING_POPULAR

    def get(self, placement: str, model: str) -> LoadedModel:
        return self.loaded[model]

    def popular(self, placement: str) -> PopularContents:
        return self.fallback


@dataclass
class Bench:
    """One placement, and a catalog to be filled."""

    text: str = MESH
    name: str = "head"
    mesh: Mesh = field(init=False)
    placements: dict[str, CompiledPlacement] = field(init=False)
    catalog: Catalog = field(init=False)
    values: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By user, by source (or "profile", "state"): what Redis holds."""

    def __post_init__(self) -> None:
        self.mesh = parse_mesh(self.text)
        self.placements = compile_placements(self.mesh)
        self.catalog = Catalog(10_000, featurizers(self.placements))

    @property
    def placement(self) -> CompiledPlacement:
        return self.placements[self.name]

    def content(self, service: str, content_id: str, genre: str = "", **fields: object) -> int:
        """Put a content into the catalog; returns its key."""
        attributes = [Attribute(name="genre", values=[genre])] if genre else []
        content = Content(content_id=content_id, attributes=attributes)
        for name, value in fields.items():
            if name == "expires_s":
                content.expires_at.FromSeconds(int(value))  # type: ignore[call-overload]
            else:
                setattr(content, name, value)
        key = hashing.content_key(service, content_id)
        self.catalog.put([Fetched(key, packing.pack_content(service, content.SerializeToString()))], 0.0)
        return key

    def user(
        self,
        user: str,
        proposals: Mapping[str, Sequence[int]],
        *,
        profile: packing.Profile | None = None,
        reactions: Sequence[tuple[str, str, str, float]] = (),
        placement: str = "head",
    ) -> str:
        """A user with candidates by source, and reactions: kind, service, content id, age in seconds; the oldest
        first."""
        own = self.values[user] = {
            source: packing.pack_candidates(1, np.array(contents, np.uint64)) for source, contents in proposals.items()
        }
        if profile is not None:
            own["profile"] = packing.pack_profile(1, profile)
        record = UserRecord.empty()
        for kind, service, content_id, age_s in reactions:
            record = reacted(record, kind, service, content_id, placement, NOW_S - age_s)
        own["state"] = record.pack()
        return user

    def requests(self, users: Sequence[str], count: int = 1) -> list[SelectionRequest]:
        return [SelectionRequest(self.name, user, {}, count) for user in users]

    def read(self, group: Group) -> tuple[Users, Pool]:
        """What the first stages make of the users' values; every source and the profiles are live in version 1."""
        live = LiveVersions({name: packing.LiveVersion(1, 0, "") for name in [*self.sources, "profiles"]})
        layout = group.placement.layout(live)
        wanted = (*self.sources, "profile", "state")
        values = [[self.values[request.user_id].get(name) for name in wanted] for request in group.requests]
        users, pool = sources.unpack(group, layout, values, NOW_S)
        return users, Pool(pool.offsets, pool.contents, pool.services, pool.sources, self.catalog.find(pool.contents))

    @property
    def sources(self) -> list[str]:
        return [source.name for source in self.placement.sources]

    def view(self, *users: str) -> View:
        """The users' candidates, as filters see them."""
        (group,) = group_requests(self.placements, self.requests(users))
        known, pool = self.read(group)
        return View(self.placement, known, pool, self.catalog, NOW_S)

    def decider(self, models: FixedModels, seed: int = 3) -> Decider:
        return Decider(self.catalog, models, EngineMetrics(CollectorRegistry()), np.random.default_rng(seed))  # type: ignore[arg-type]
