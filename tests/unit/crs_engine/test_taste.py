"""Taste in the engine: als retrieves and scores by what the user's record remembers, blend shifts to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.bandits import hashing
from banditmesh.bandits.als import Als, AlsParams
from banditmesh.bandits.blend import Blend
from banditmesh.bandits.feedback import KINDS
from banditmesh.bandits.registry import build, model_name
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import open_store
from banditmesh.runtime.user_record import UserRecord
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import FALLBACK, LoadedModel, Models
from services.crs_engine.pipeline.feedback import feedback
from tests.support.engine_batch import NOW_S, Bench, FixedModels, decisions, run
from tests.support.engine_world import MESH

PARAMS = {"factors": 2, "regularization": 0.1}
SHELF = """
services:
  comics: {logics: [new, similar]}
  weather: {logics: [today, tomorrow]}
placements:
  head:
    sources: []
    retrieve: {from: [comics], als: {share: 3, model: {factors: 2, regularization: 0.1}}}
    hide_clicked: false
    fallback: none
    experiment:
      variants:
        taste: {weight: 1, policy: {als: {factors: 2, regularization: 0.1}}, explore: {greedy: {}}}
"""


def fitted(bench: Bench) -> Als:
    """Two tastes: comics l* along the one axis, r* along the other; rain along the first."""
    names = [("comics", f"{side}{n}") for side in "lr" for n in range(4)] + [("weather", "rain")]
    for service, name in names:
        bench.content(service, name)
    factors = [[1 - n / 10, 0.01] for n in range(4)] + [[0.01, 1 - n / 10] for n in range(4)] + [[2.0, 0.0]]
    keys = np.array([hashing.content_key(*name) for name in names], np.uint64)
    services = np.array([hashing.service_key(service) for service, _ in names], np.uint64)
    return Als.fitted(AlsParams.model_validate(PARAMS), keys, services, np.array(factors, np.float32))


def models(als: Als) -> FixedModels:
    return FixedModels({model_name("als", PARAMS): LoadedModel(als, 7), FALLBACK: LoadedModel(build("popularity"))})


def test_als_retrieves_and_scores_what_is_like_what_the_user_did_and_not_that_itself() -> None:
    bench = Bench(SHELF)
    found = models(fitted(bench))
    left = bench.user("left", {}, reactions=[("click", "comics", "l0", 60.0)])
    right = bench.user("right", {}, reactions=[("click", "comics", "r1", 60.0)])
    new = bench.user("new", {})
    shown = decisions(run(bench, found, [left, right, new], count=4))
    assert [each.content_id for each in shown["left"]] == ["l1", "l2", "l3"]
    assert [each.content_id for each in shown["right"]] == ["r0", "r2", "r3"]
    assert shown["new"] == [], "nobody is known, so nothing is proposed; popularity is there for that"
    assert {each.model_version for each in shown["left"]} == {7}
    assert all(each.propensity == 1 for each in shown["left"])


def test_what_has_gone_since_the_fit_takes_no_place_of_what_can_be_shown() -> None:
    bench = Bench(SHELF)
    found = models(fitted(bench))
    bench.content("comics", "l1", hidden=True)
    bench.content("comics", "l2", expires_s=NOW_S - 1)
    left = bench.user("left", {}, reactions=[("click", "comics", "l0", 60.0)])
    (shown,) = decisions(run(bench, found, [left], count=4)).values()
    assert len(shown) == 3
    assert shown[0].content_id == "l3"


def test_feedback_is_what_the_record_remembers_of_each_content() -> None:
    record = UserRecord.empty().counted(feedback=3)
    record = record.tasted("click", 1.0, 1, 11, 30).tasted("target", 1.0, 2, 11, 30).tasted("dwell", 60.0, 3, 12, 30)
    record = record.tasted("mute", 1.0, 4, 13, 30)
    found = feedback(UserRecords([None, record.pack()]))
    told = {
        (int(content), KINDS[kind]): float(amount)
        for content, kind, amount in zip(found.contents, found.kinds, found.amounts, strict=True)
    }
    assert told.pop((12, "dwell")) == pytest.approx(60.0, rel=0.05)
    assert told == {(11, "click"): 1.0, (11, "target"): 1.0, (13, "dislike"): 1.0}
    assert found.counts.tolist() == [0, 3]
    assert found.offsets.tolist() == [0, 0, 4]


def test_a_mesh_that_has_taste_remembers_what_users_did_and_knows_its_model() -> None:
    blend = parse_mesh(MESH.replace("{linucb: {arm: logic}}", "{blend: {personal: {als: {factors: 8, feedback: 40}}}}"))
    assert blend.remembers() == 40
    policies = {model.policy: (name, model.variants) for (_, name), model in blend.models().items()}
    assert policies["als"] == (model_name("als", {"factors": 8, "feedback": 40}), ())
    assert policies["blend"][1] == ("learned",)
    assert parse_mesh(MESH).remembers() == 0
    with pytest.raises(ConfigurationError, match=r"retrieve\.als: model: .*no parameter 'factor'"):
        parse_mesh(SHELF.replace("share: 3, model: {factors", "share: 3, model: {factor"))


async def test_a_blend_takes_up_a_new_fit_beside_its_own_snapshots(tmp_path: Path) -> None:
    mesh = parse_mesh(MESH.replace("{linucb: {arm: logic}}", "{blend: {personal: {als: {factors: 2}}}}"))
    snapshots = Snapshots(open_store(tmp_path.as_uri()), None)
    found = Models.of(mesh, snapshots, ManualClock(NOW_S), EngineMetrics(CollectorRegistry()))
    (blend,) = (name for _, name in found.slots if name.startswith("blend"))
    als = Als.fitted(
        AlsParams(factors=2), np.array([5], np.uint64), np.zeros(1, np.uint64), np.ones((1, 2), np.float32)
    )
    await put(snapshots, "als", als)
    await found.poll()
    loaded = found.get("head", blend)
    assert isinstance(loaded.policy, Blend)
    assert (loaded.version, loaded.beneath, loaded.policy.personal.keys.tolist()) == (0, 1, [5])
    await put(snapshots, "blend", loaded.policy)
    await found.poll()
    loaded = found.get("head", blend)
    assert isinstance(loaded.policy, Blend)
    assert (loaded.version, loaded.beneath, loaded.policy.personal.keys.tolist()) == (1, 1, [5])


async def put(snapshots: Snapshots, policy: str, trained: Als | Blend) -> None:
    params = trained.params.model_dump(mode="json")
    manifest = Manifest("head", model_name(policy, params), policy, params, 0, 1, 0, {}, {})
    await snapshots.publish(manifest, trained.tensors(), after=await snapshots.pointer("head", manifest.model))
