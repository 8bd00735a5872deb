"""The models that score: loaded at the start, swapped beside the traffic, one reference at a time.

A snapshot is downloaded, verified and tried out in a thread; only then does it replace the one before. A bad one is
refused and counted, the old one stays. Without any snapshot the untrained prior scores, and without a store it goes
on doing so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from banditmesh.bandits import registry
from banditmesh.bandits.als import Als
from banditmesh.bandits.batch import Candidates, SparseRows
from banditmesh.bandits.blend import Blend
from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.policy import Policy
from banditmesh.bandits.popularity import Popularity
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.mesh import POPULARITY, Mesh
from banditmesh.runtime.outages import outages
from banditmesh.runtime.snapshots import BadSnapshot, Pointer, Snapshots
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.popular_contents import NOTHING_POPULAR, PopularContents

log = get_logger(__name__)

FALLBACK: Final = registry.model_name(POPULARITY.policy, POPULARITY.params)
RETRIED: Final = frozenset({"missing"})
"""Reasons that may pass by themselves: what the pointer names is being replaced."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A policy that is being served from, and where it comes from."""

    policy: Policy
    version: int = 0
    """The snapshot's version; 0: the untrained prior."""
    published_at_ms: int = 0
    loaded_at_s: float = 0.0
    examples: int = 0
    beneath: int = 0
    """The version of the snapshot that its policy stands on; 0: there is none, or it needs none."""


@dataclass(eq=False)
class ModelSlot:
    """One model of one placement: what is served, what is known of the newest snapshot."""

    placement: str
    model: str
    policy: str
    params: Mapping[str, Any]
    variants: tuple[str, ...]
    loaded: LoadedModel
    seen: Pointer | None = None
    """The newest pointer that was dealt with, by loading it or by refusing it."""
    refused: str = ""


@dataclass
class Models:
    """All models of the mesh file, and the popular contents of each placement."""

    snapshots: Snapshots
    clock: Clock
    metrics: EngineMetrics
    popular_size: int
    slots: dict[tuple[str, str], ModelSlot] = field(default_factory=dict)
    popular_contents: dict[tuple[str, str], PopularContents] = field(default_factory=dict)
    """By placement and model's name."""

    @classmethod
    def of(
        cls,
        mesh: Mesh,
        snapshots: Snapshots,
        clock: Clock,
        metrics: EngineMetrics,
        untrained: Mapping[tuple[str, str], Policy] | None = None,
    ) -> Models:
        """At their priors; :meth:`poll` loads. ``untrained``: what :func:`priors` has made of this mesh already."""
        models = cls(snapshots, clock, metrics, max(mesh.engine.fallback_contents, 2 * _most_popular(mesh)))
        untrained = priors(mesh) if untrained is None else untrained
        for (placement, name), model in mesh.models().items():
            models.slots[placement, name] = ModelSlot(
                placement, name, model.policy, model.params, model.variants, LoadedModel(untrained[placement, name])
            )
        return models

    def get(self, placement: str, model: str) -> LoadedModel:
        """What to score with. Keep the answer for a whole batch: the next one may be another."""
        return self.slots[placement, model].loaded

    def popular(self, placement: str, model: str) -> PopularContents:
        """The most popular contents of a placement; empty when there is no snapshot, or nobody asks for them.
        ``model``: who counts them."""
        return self.popular_contents.get((placement, model), NOTHING_POPULAR)

    async def poll(self) -> None:
        """Look once for newer snapshots and load them. Never raises, and no model waits for another's: what fails is
        logged, counted and tried again next time."""
        for slot in list(self.slots.values()):
            work = outages.work(f"model {slot.placement}/{slot.model}")
            self.metrics.model_version.labels(slot.placement, slot.model).set(slot.loaded.version)
            try:
                pointer = await self.snapshots.moved(slot.placement, slot.model, slot.seen)
                if pointer is not None:
                    await self._load(slot, pointer)
                work.well()
            except (BadSnapshot, BanditError) as error:
                self._refuse(slot, error.reason if isinstance(error, BadSnapshot) else "tensors", str(error))
            except (MeshError, OSError) as error:  # the store is away; the cache's disk is full, or not ours to write
                self.metrics.model_unread.labels(slot.placement, slot.model).inc()
                work.failed(error)
            except Exception:  # a bug, or a file that nobody foresaw: the other models must not suffer for it
                self.metrics.model_unread.labels(slot.placement, slot.model).inc()
                log.exception("loading a snapshot crashed", placement=slot.placement, model=slot.model)

    async def poll_for_ever(self, every_s: float) -> None:
        """To be run in the background."""
        while True:
            await self.poll()
            await self.clock.sleep(every_s)

    async def _load(self, slot: ModelSlot, pointer: Pointer) -> None:
        try:
            snapshot = await self.snapshots.load(slot.placement, slot.model, pointer.version)
            policy = await asyncio.to_thread(registry.load, slot.policy, slot.params, snapshot.tensors)
            await asyncio.to_thread(_try_out, policy)
            popular = (
                await asyncio.to_thread(PopularContents.of, policy, self.popular_size)
                if isinstance(policy, Popularity)
                else None
            )
        except BadSnapshot as error:
            if error.reason not in RETRIED:
                slot.seen = pointer
            raise
        except BanditError:
            slot.seen = pointer
            raise
        manifest = snapshot.manifest
        slot.loaded = LoadedModel(
            policy, manifest.version, manifest.published_at_ms, self.clock.now_s(), manifest.examples
        )
        slot.seen, slot.refused = pointer, ""
        if isinstance(policy, Blend | Als):
            self._assemble(slot.placement)
        if popular is not None:
            self.popular_contents[slot.placement, slot.model] = popular
        self.metrics.model_version.labels(slot.placement, slot.model).set(manifest.version)
        self.metrics.model_published.labels(slot.placement, slot.model).set(manifest.published_at_ms / 1000)
        log.info(
            "snapshot loaded",
            placement=slot.placement,
            model=slot.model,
            version=manifest.version,
            examples=manifest.examples,
        )

    def _assemble(self, placement: str) -> None:
        """Put policies that score by another one's model beside the newest of it, one reference at a time."""
        for (at, _), slot in self.slots.items():
            policy = slot.loaded.policy
            if at != placement or not isinstance(policy, Blend):
                continue
            (name, params), *_ = policy.params.stands_on.items()
            beneath = self.slots[placement, registry.model_name(name, params)].loaded
            if isinstance(beneath.policy, Als) and policy.personal is not beneath.policy:
                slot.loaded = replace(slot.loaded, policy=policy.standing_on(beneath.policy), beneath=beneath.version)

    def _refuse(self, slot: ModelSlot, reason: str, message: str) -> None:
        slot.refused = message
        self.metrics.model_refused.labels(slot.placement, slot.model, reason).inc()
        log.error(
            "snapshot refused",
            placement=slot.placement,
            model=slot.model,
            served=slot.loaded.version,
            reason=reason,
            error=message,
        )


def priors(mesh: Mesh) -> dict[tuple[str, str], Policy]:
    """The untrained policy of every model, by placement and name. Nobody teaches it here, so that models of equal
    policy and parameters have one together."""
    found: dict[tuple[str, str], Policy] = {}
    known: dict[tuple[str, str], Policy] = {}
    for key, model in mesh.models().items():
        written = (model.policy, repr(model.params))
        if written not in known:
            known[written] = registry.build(model.policy, model.params)
        found[key] = known[written]
    return found


def _most_popular(mesh: Mesh) -> int:
    """How many of the most popular contents any ``retrieve`` asks for."""
    retrieves = [each.retrieve_of(name) for each in mesh.placements.values() for name in each.experiment.variants]
    return max((each.popularity.share for each in retrieves if each and each.popularity), default=0)


def _try_out(policy: Policy) -> None:
    """Score something once: pages are mapped in, and a policy that cannot score its own tensors is found here, not by
    a user.

    Raises BadSnapshot ("score").
    """
    keys = np.arange(2, dtype=np.uint64)
    features = SparseRows.from_lists([[(1, 1.0)], [(2, 1.0)]])
    try:
        scores = policy.score(
            Candidates(np.array([0, 2]), keys, keys, keys, SparseRows.from_lists([[(3, 1.0)]]), features)
        )
    except (ArithmeticError, IndexError, ValueError) as error:
        raise BadSnapshot("score", f"the model cannot score: {error!r}") from error
    if not scores.usable().all():
        raise BadSnapshot("score", f"the model scores {scores.mean.tolist()} ± {scores.deviation.tolist()}")
