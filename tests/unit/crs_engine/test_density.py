"""``density`` in the engine: user vectors at the request, what is proposed near whom, tokens, and exchanged tables."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.bandits import hashing
from banditmesh.retrieval.density import DensitySums, Events
from banditmesh.retrieval.user_vector import pack, unpack
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.snapshots import Manifest, Pointer, Snapshots
from banditmesh.runtime.store import open_store
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine.densities import Densities
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline.user_vectors import user_vectors
from tests.support.engine_batch import NOW_S, Bench, decisions, run
from tests.unit.crs_engine.test_pipeline import untrained

MESH = """
services: {news: {logics: [none]}, comics: {logics: [none]}}
vectors: {dimensions: 8}
placements:
  head:
    retrieve: {from: [news], density: {share: 3, features: 256, smoothing: 5, optimism: 0, half_life: 1h}}
    hide_clicked: false
    fallback: none
    features: {candidate: [score]}
    experiment:
      variants:
        near: {weight: 1, policy: {linucb: {arm: logic}}, explore: {greedy: {}}}
"""
SPORT, MUSIC = np.eye(8, dtype=np.float32)[:2]
(MODEL,) = parse_mesh(MESH).densities()


def filled(text: str = MESH) -> Bench:
    """News of two tastes, s0 … s4 and m0 … m4, and a user of each taste."""
    bench = Bench(text)
    for taste, axis in (("s", SPORT), ("m", MUSIC)):
        for at in range(5):
            bench.content("news", f"{taste}{at}", embedding=axis.tolist())
    bench.user("ann", {}, opened=[("news", "s0", 60.0), ("news", "s1", 30.0)])
    bench.user("bob", {}, opened=[("news", "m0", 60.0)])
    bench.user("new", {})
    return bench


def sums(bench: Bench, *clicked: tuple[str, np.ndarray[Any, Any]], contents: str = "sm") -> DensitySums:
    """All news shown 20 times to both tastes; each of those clicked by 15 users of the taste."""
    found = DensitySums(bench.densities.served[MODEL].params)
    keys = [hashing.content_key("news", f"{taste}{at}") for taste in contents for at in range(5)]
    for axis in (SPORT, MUSIC):
        shown = np.repeat(np.array(keys, np.uint64), 20)
        found.shown(Events(shown, pack(np.tile(axis, (len(shown), 1))), np.full(len(shown), NOW_S)))
    for content, axis in clicked:
        key = np.full(15, hashing.content_key("news", content), np.uint64)
        found.clicked(Events(key, pack(np.tile(axis, (15, 1))), np.full(15, NOW_S)))
    return found


class Published:
    """Snapshots in a folder, and densities that follow them."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.snapshots = Snapshots(open_store(f"file://{folder}"), None)
        clock, metrics = ManualClock(NOW_S), EngineMetrics(CollectorRegistry())
        self.densities = Densities(bench.mesh, self.snapshots, bench.catalog, clock, metrics)
        bench.densities = self.densities
        self.served = self.densities.served[MODEL]
        self.served.alive[bench.placement.shown_services.tobytes()] = np.zeros(0, np.bool_)
        self.pointer: Pointer | None = None

    def publish(self, tensors: dict[str, Any], base: int = 0) -> int:
        return asyncio.run(self._publish(tensors, base))

    async def _publish(self, tensors: dict[str, Any], base: int) -> int:
        manifest = Manifest(*MODEL, "density", {"features": 256, "dimensions": 8}, 0, 0, 0, {}, {}, base=base)
        self.pointer = await self.snapshots.publish(manifest, tensors, after=self.pointer)
        await self.densities.poll()
        return self.pointer.version


def shown(bench: Bench) -> dict[str, list[str]]:
    users = ["ann", "bob", "new"]
    found = decisions(run(bench, untrained(bench), users, count=3))
    assert {each.logic for of_user in found.values() for each in of_user} <= {"density"}
    return {user: [each.content_id for each in found[user]] for user in users}


def test_without_a_snapshot_nothing_is_proposed() -> None:
    assert shown(filled()) == {"ann": [], "bob": [], "new": []}


def test_each_user_gets_what_the_neighbours_click_and_a_stranger_what_all_click(tmp_path: Path) -> None:
    bench = filled()
    published = Published(bench, tmp_path)
    published.publish(sums(bench, ("s3", SPORT), ("m3", MUSIC), ("m4", MUSIC), ("m4", MUSIC)).full())
    slate = run(bench, untrained(bench), ["ann", "bob", "new"], count=3).slate
    pool = slate.rounds[0].pool
    best = [int(pool.contents[start]) for start in pool.offsets[:-1]]
    assert best == [hashing.content_key("news", each) for each in ("s3", "m4", "m4")]
    assert pool.counts.tolist() == [3, 3, 3]
    assert pool.said is not None
    assert (pool.said[:, 0] > 0).all()


def test_what_the_neighbours_click_is_proposed_as_that_also_where_it_is_new_or_popular(tmp_path: Path) -> None:
    everybodys = "newest: {share: 10}, popularity: {share: 10}, density: {share: 3"
    bench = filled(MESH.replace("density: {share: 3", everybodys))
    Published(bench, tmp_path).publish(sums(bench, ("s3", SPORT)).full())
    popular = [hashing.content_key("news", each) for each in ("s3", "m3")]
    (found,) = decisions(run(bench, untrained(bench, popular=popular), ["ann"], count=20)).values()
    logic_of = {each.content_id: each.logic for each in found}
    assert logic_of["s3"] == "density"
    assert sorted(logic_of) == sorted(f"{taste}{at}" for taste in "sm" for at in range(5))
    assert list(logic_of.values()).count("density") == 3


def test_what_is_gone_hidden_or_of_another_service_is_not_proposed(tmp_path: Path) -> None:
    bench = filled()
    bench.content("news", "s3", hidden=True, embedding=SPORT.tolist())
    bench.content("news", "s2", expires_s=NOW_S - 1, embedding=SPORT.tolist())
    published = Published(bench, tmp_path)
    known = sums(bench, ("s3", SPORT), ("s2", SPORT), ("s4", SPORT), ("x1", SPORT))
    published.publish(known.full())
    assert shown(bench)["ann"][0] in {"s4", "s0", "s1"}
    assert not {"s3", "s2", "x1"} & {*shown(bench)["ann"]}


def test_a_user_who_comes_back_after_years_is_where_the_last_clicks_were() -> None:
    bench = filled(MESH.replace("share: 3,", "share: 3, user: {recency: 1h},"))
    bench.user("old", {}, opened=[("news", "s0", 3e8 + 3600.0), ("news", "m0", 3e8)])
    (vector,) = user_vectors_of(bench, "old")
    assert [vector @ MUSIC, vector @ SPORT] == pytest.approx([2 * 5**-0.5, 5**-0.5], abs=0.02)


def user_vectors_of(bench: Bench, *users: str) -> np.ndarray[Any, Any]:
    records = UserRecords([bench.values[user]["state"] for user in users])
    found = user_vectors(bench.placement, records, bench.catalog, bench.densities, NOW_S)
    assert found is not None
    return found


def test_the_token_says_where_the_user_was_and_nothing_of_a_stranger(tmp_path: Path) -> None:
    bench = filled()
    Published(bench, tmp_path).publish(sums(bench, ("s3", SPORT)).full())
    found = decisions(run(bench, untrained(bench), ["ann", "new"], count=1))
    assert unpack([found["ann"][0].user_vector], 8)[0] @ SPORT == pytest.approx(1, abs=1e-3)
    assert found["new"][0].user_vector == b""
    assert len(found["ann"][0].SerializeToString()) < 220


def test_a_delta_is_served_after_its_base_and_a_rollback_is_a_version_like_any_other(tmp_path: Path) -> None:
    bench = filled()
    published, learner = Published(bench, tmp_path), sums(bench)
    base = published.publish(learner.full())
    before = published.served.table
    learner.clicked(
        Events(
            np.full(15, hashing.content_key("news", "s4"), np.uint64), pack(np.tile(SPORT, (15, 1))), np.full(15, NOW_S)
        )
    )
    delta = learner.delta()
    published.publish(delta, base=base)
    assert (published.served.version, published.served.base) == (2, base)
    table = published.served.table
    assert table is not None
    assert before is not None
    assert table.base is before.base  # the full snapshot was not loaded again
    assert shown(bench)["ann"][0] == "s4"
    learner.clicked(
        Events(
            np.full(60, hashing.content_key("news", "s2"), np.uint64), pack(np.tile(SPORT, (60, 1))), np.full(60, NOW_S)
        )
    )
    published.publish(learner.delta(), base=base)
    best = run(bench, untrained(bench), ["ann"], count=3).slate.rounds[0].pool.contents[0]
    assert int(best) == hashing.content_key("news", "s2")
    published.publish(delta, base=base)  # as a rollback publishes it
    best = run(bench, untrained(bench), ["ann"], count=3).slate.rounds[0].pool.contents[0]
    assert int(best) == hashing.content_key("news", "s4")


def test_a_version_that_does_not_fit_is_refused_and_the_one_before_serves(tmp_path: Path) -> None:
    bench = filled()
    published = Published(bench, tmp_path)
    published.publish(sums(bench, ("s3", SPORT)).full())
    tensors = sums(bench).tensors()
    published.publish({**tensors, "clicks": tensors["clicks"][:, :10].copy()})
    assert published.served.version == 1
    assert shown(bench)["ann"] != []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("vectors: {dimensions: 8}\n", "", "retrieve.density: compares users by the vectors of contents"),
        ("dimensions: 8", "dimensions: 600", "vectors.dimensions: Input should be less than or equal to 512 (is 600)"),
        ("features: 256", "features: 255", "retrieve.density.features: Input should be a multiple of 2 (is 255)"),
        ("smoothing: 5", "smooth: 5", "retrieve.density.smooth: unknown key; did you mean 'smoothing'?"),
        (
            "explore: {greedy: {}}}",
            "retrieve: {density: {share: 9, user: {clicks: 5}}}}\n        far: {weight: 1, policy: {linucb: {}}}",
            "placements.head.experiment: variants have different retrieve.density.user",
        ),
    ],
)
def test_what_cannot_be_is_named(old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_mesh(MESH.replace(old, new))
    assert problem in str(caught.value)
