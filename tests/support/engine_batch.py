"""Groups, users and pools by hand, for the engine's stages: everything in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from banditmesh.bandits import hashing
from banditmesh.contracts.crs_engine.v1.crs_engine_pb2 import SelectedContent
from banditmesh.contracts.events.v1.events_pb2 import Decision
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.runtime import packing, rule_options
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.mesh import Mesh, parse_mesh
from banditmesh.runtime.token import KeyRing
from banditmesh.runtime.user_record import UserRecord
from services.crs_engine.catalog import Catalog, Fetched
from services.crs_engine.compiled_placement import CompiledPlacement, Layout, compile_placements, featurizers
from services.crs_engine.densities import Densities
from services.crs_engine.engine import group_requests
from services.crs_engine.live import LiveVersions
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import LoadedModel
from services.crs_engine.pipeline import filters, retrievers, rules, sources
from services.crs_engine.pipeline.batch import Answered, Group, SelectionRequest, UserValues, View
from services.crs_engine.pipeline.hydrate import hydrate
from services.crs_engine.pipeline.pipeline import Pipeline
from services.crs_engine.popular_contents import NOTHING_POPULAR, PopularContents
from tests.support.engine_world import MESH
from tests.support.user_records import reacted

RING = KeyRing.parse("1:" + "ab" * 32)
NOW_S = 1_700_000_000.0


@dataclass
class FixedModels:
    """The models as they were put here: what :class:`services.crs_engine.models.Models` answers, without a store."""

    loaded: Mapping[str, LoadedModel]
    fallback: PopularContents = NOTHING_POPULAR
    popular_by: Mapping[str, PopularContents] = field(default_factory=dict)
    """By the model that counts, where it is not the fallback's."""

    def get(self, placement: str, model: str) -> LoadedModel:
        return self.loaded[model]

    def popular(self, placement: str, model: str) -> PopularContents:
        return self.popular_by.get(model, self.fallback)


@dataclass
class Bench:
    """One placement, and a catalog to be filled."""

    text: str = MESH
    name: str = "head"
    mesh: Mesh = field(init=False)
    placements: dict[str, CompiledPlacement] = field(init=False)
    catalog: Catalog = field(init=False)
    densities: Densities = field(init=False)
    values: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By user, by source (or "profile", "state"): what Redis holds."""
    said: dict[str, str] = field(default_factory=dict)
    """The context of each request."""

    def __post_init__(self) -> None:
        self.mesh = parse_mesh(self.text)
        self.placements = compile_placements(self.mesh)
        self.catalog = Catalog(
            10_000,
            featurizers(self.placements),
            attributes={name for each in self.mesh.placements.values() for name in rule_options.attributes(each.rules)},
            counted_by=self.mesh.capped(),
            dimensions=self.mesh.vectors.dimensions if self.mesh.vectors else 0,
        )
        metrics = EngineMetrics(CollectorRegistry())
        self.densities = Densities(self.mesh, cast(Any, None), self.catalog, ManualClock(NOW_S), metrics)

    @property
    def placement(self) -> CompiledPlacement:
        return self.placements[self.name]

    def content(self, service: str, content_id: str, genre: str = "", **fields: object) -> int:
        """Put a content into the catalog; returns its key."""
        attributes = [Attribute(name="genre", values=genre.split("|"))] if genre else []
        content = Content(content_id=content_id, attributes=attributes)
        for name, value in fields.items():
            if name == "age_s":
                content.attributes.add(name="published_at", number=NOW_S - float(value))  # type: ignore[arg-type]
            elif name == "embedding":
                content.embedding.extend(value)  # type: ignore[arg-type]
            elif name == "expires_s":
                content.expires_at.FromSeconds(int(value))  # type: ignore[call-overload]
            elif name in ("label", "campaign", "countries"):
                content.attributes.add(name=name, values=str(value).split("|"))
            else:
                setattr(content, name, value)
        key = hashing.content_key(service, content_id)
        vector = packing.pack_vector(np.array(content.embedding, np.float32))
        content.ClearField("embedding")
        self.catalog.put([Fetched(key, packing.pack_content(service, content.SerializeToString(), vector))], 0.0)
        return key

    def user(
        self,
        user: str,
        proposals: Mapping[str, Sequence[int]],
        *,
        profile: packing.Profile | None = None,
        reactions: Sequence[tuple[str, str, str, float]] = (),
        shown: Sequence[tuple[str, str, float]] = (),
        opened: Sequence[tuple[str, str, float]] = (),
        placement: str = "head",
    ) -> str:
        """A user with candidates by source, and reactions (kind, service, content id, age in seconds), and what
        the user was shown, and opened where a model remembers it (service, content id, age in seconds); the oldest
        first."""
        own = self.values[user] = {
            source: packing.pack_candidates(1, np.array(contents, np.uint64)) for source, contents in proposals.items()
        }
        if profile is not None:
            own["profile"] = packing.pack_profile(1, profile)
        record = UserRecord.empty()
        for kind, service, content_id, age_s in reactions:
            record = reacted(record, kind, service, content_id, placement, NOW_S - age_s)
        for service, content_id, age_s in opened:
            record = record.tasted("click", 1.0, int(NOW_S - age_s), hashing.content_key(service, content_id), 30)
        for service, content_id, age_s in shown:
            key = hashing.content_key(service, content_id)
            row = int(self.catalog.find(np.array([key], np.uint64))[0])
            labels = Decision.FromString(self.catalog.decided(row)).counted_by if row >= 0 else ()
            record = record.shown(int(NOW_S - age_s), key, hashing.service_key(service), labels)
        own["state"] = record.pack()
        return user

    def requests(self, users: Sequence[str], count: int = 1) -> list[SelectionRequest]:
        return [SelectionRequest(self.name, user, self.said, count) for user in users]

    def layout(self, live: LiveVersions | None = None) -> Layout:
        """Every source and the profiles are live in version 1."""
        names = [*self.sources, "profiles"]
        return self.placement.layout(live or LiveVersions({name: packing.LiveVersion(1, 0, "") for name in names}))

    def read(self, group: Group) -> UserValues:
        """What Redis has of the users."""
        cached = () if self.placement.config.cache is None else ("ranked",)
        wanted = (*self.sources, *cached, "profile", "state")
        rows = [[self.values[request.user_id].get(name) for name in wanted] for request in group.requests]
        return UserValues(self.layout(), rows, reached=True)

    @property
    def sources(self) -> list[str]:
        return [source.name for source in self.placement.sources if source.mapped]

    def group(self, users: Sequence[str], count: int = 1) -> Group:
        (group,) = group_requests(self.placements, self.requests(users, count))
        return group

    def view(self, *users: str) -> View:
        """The users' candidates, as filters see them."""
        group = self.group(users)
        values = self.read(group)
        known = sources.read(group, values, NOW_S)
        pool = hydrate(sources.propose(group, known, values, retrievers.Retrievers([]), NOW_S), self.catalog)
        return View(self.placement, known, pool, self.catalog, NOW_S)

    def pipeline(self, models: FixedModels, seed: int = 3) -> Pipeline:
        """The pipeline over these models and this catalog, at ``NOW_S``."""
        newest = retrievers.Newest(self.catalog, 100)
        for placement in self.placements.values():
            if newest.name in placement.retrievers:
                newest.refresh(placement, NOW_S)
        config = self.mesh.placements
        return Pipeline(
            self.catalog,
            models,  # type: ignore[arg-type]
            self.densities,
            retrievers.Retrievers(
                [retrievers.Popularity(models, self.catalog), newest],  # type: ignore[arg-type]
                [retrievers.Density(self.densities), retrievers.Als(models, self.catalog)],
            ),  # type: ignore[arg-type]
            {name: filters.enabled(each) for name, each in config.items()},
            {name: rules.enabled(each) for name, each in config.items()},
            RING,
            ManualClock(NOW_S),
            EngineMetrics(CollectorRegistry()),
            np.random.default_rng(seed),
        )


@dataclass(frozen=True)
class BenchReads:
    """Reads what the bench holds instead of Redis; contents are all in the catalog, or nowhere."""

    bench: Bench
    reached: bool = True
    asked: list[list[int]] = field(default_factory=list)
    """The contents that were asked for, call by call."""

    async def users(self, groups: Sequence[Group]) -> list[UserValues]:
        read = [self.bench.read(group) for group in groups]
        if self.reached:
            return read
        nothing = [None] * len(self.bench.sources)
        return [UserValues(each.layout, [[*nothing, *row[-2:]] for row in each.rows], reached=False) for each in read]

    async def contents(self, contents: NDArray[np.uint64]) -> None:
        self.asked.append(contents.tolist())


def run(
    bench: Bench, models: FixedModels, users: Sequence[str], count: int = 1, reads: BenchReads | None = None
) -> Answered:
    """What the pipeline makes of these users, taken together."""
    (answered,) = asyncio.run(bench.pipeline(models).run([bench.group(users, count)], reads or BenchReads(bench)))
    return answered


def decisions(answered: Answered) -> dict[str, list[Decision]]:
    """By user: what the tokens of the contents shown say, the first position first."""
    return {
        request.user_id: [
            RING.verify(SelectedContent.FromString(each).impression_token, now_s=NOW_S, max_age_s=1)
            for each in outcome.contents
        ]
        for request, outcome in zip(answered.slate.group.requests, answered.outcomes, strict=True)
    }
