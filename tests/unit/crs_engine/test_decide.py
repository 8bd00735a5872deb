"""The stages from filters to choice, over batches made by hand."""

from __future__ import annotations

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.bandits.registry import build
from banditmesh.contracts.crs_engine.v1.crs_engine_pb2 import SelectedContent
from banditmesh.runtime.token import KeyRing
from services.crs_engine.decide import Decided
from services.crs_engine.engine import group_requests
from services.crs_engine.models import LoadedModel
from services.crs_engine.pipeline.respond import no_content, respond
from services.crs_engine.popular_contents import PopularContents
from tests.support.engine_batch import NOW_S, Bench, FixedModels
from tests.support.engine_world import MESH

RING = KeyRing.parse("1:" + "ab" * 32)
TWO = MESH.replace(
    "        learned: {weight: 1, policy: {linucb: {arm: logic}}, explore: {greedy: {}}}",
    "        learned: {weight: 1, policy: {linucb: {arm: content}}, explore: {greedy: {}}}\n"
    "        other: {weight: 1, policy: {linucb: {arm: content, ridge: 2.0}}, explore: {greedy: {}}}",
)


def trained(bench: Bench) -> FixedModels:
    """A model for each variant that prefers some contents to others."""
    rng = np.random.default_rng(5)
    loaded = {}
    for variant in bench.mesh.placements["head"].experiment.variants.values():
        policy = build(variant.policy_name, variant.policy_params)
        keys = [hashing.content_key("comics", f"c{n}") for n in range(40)]
        tensors = policy.tensors()
        n, d = len(keys), 32
        tensors["arms"] = np.sort(np.array(keys, np.uint64))
        tensors["precision"] = np.zeros((n, d * (d + 1) // 2))
        tensors["moment"] = rng.normal(size=(n, d))
        tensors["readout"] = rng.normal(size=(n, d + 1, d)).astype(np.float32)
        tensors["last_s"] = np.zeros(n)
        loaded[variant.model] = LoadedModel(type(policy).from_tensors(policy.params, tensors), version=4)
    return FixedModels(loaded)


def fill(bench: Bench, n_users: int = 50) -> list[str]:
    """Users with 0 to 12 candidates of 40 contents, some muted, some clicked."""
    rng = np.random.default_rng(2)
    comics = [bench.content("comics", f"c{n}", genre=f"g{n % 5}") for n in range(40)]
    rain = bench.content("weather", "rain")
    users = []
    for n in range(n_users):
        proposals = {
            "comics/new": [comics[at] for at in rng.choice(40, n % 13, replace=False)],
            "weather/today": [rain] * (n % 2),
        }
        reactions = [("click", "comics", f"c{n % 40}", 99.0)] if n % 3 == 0 else [("mute", "weather", "rain", 7200.0)]
        users.append(bench.user(f"user{n}", proposals, profile={"age": f"{n % 6}0s"}, reactions=reactions))
    return users


def decide(bench: Bench, models: FixedModels, users: list[str], count: int = 1) -> Decided:
    (group,) = group_requests(bench.placements, bench.requests(users, count))
    known, pool = bench.read(group)
    return bench.decider(models).decide(group, known, pool, NOW_S)


def chosen(bench: Bench, decided: Decided) -> dict[str, list[tuple[str, str, float, tuple[int, ...]]]]:
    """By user: content, variant, propensity and features of what is shown."""
    answers = respond(decided.group, decided.scored, bench.catalog, RING, NOW_S)
    found = {}
    for request, shown in zip(decided.group.requests, answers, strict=True):
        tokens = [SelectedContent.FromString(each).impression_token for each in shown]
        decisions = [RING.verify(token, now_s=NOW_S, max_age_s=1) for token in tokens]
        found[request.user_id] = [
            (each.content_id, each.variant, round(each.propensity, 6), tuple(each.features.ids)) for each in decisions
        ]
    return found


def test_a_batch_of_fifty_decides_what_fifty_batches_of_one_decide() -> None:
    bench = Bench(TWO)
    users, models = fill(bench), trained(bench)
    together = chosen(bench, decide(bench, models, users))
    alone: dict[str, list[tuple[str, str, float, tuple[int, ...]]]] = {}
    for user in users:
        alone |= chosen(bench, decide(bench, models, [user]))
    assert together == alone
    assert len({content for shown in together.values() for content, *_ in shown}) > 10
    assert {variant for shown in together.values() for _, variant, *_ in shown} == {"learned", "other"}


def test_a_ranked_list_begins_with_what_a_single_selection_shows() -> None:
    bench = Bench(TWO)
    users, models = fill(bench), trained(bench)
    single, ranked = chosen(bench, decide(bench, models, users)), chosen(bench, decide(bench, models, users, count=5))
    for user in users:
        assert ranked[user][:1] == single[user]
        assert len({content for content, *_ in ranked[user]}) == len(ranked[user])


def test_the_fallback_draws_with_the_propensities_that_it_states() -> None:
    bench = Bench()
    keys = [bench.content("comics", f"c{n}") for n in range(3)]
    popular = PopularContents(
        np.array(keys, np.uint64),
        np.full(3, hashing.service_key("comics"), np.uint64),
        tuple(("comics", f"c{n}") for n in range(3)),
        np.array([1.0, 1 / 2, 1 / 3]),
    )
    models = FixedModels(
        {each.model: LoadedModel(build("linucb", {"arm": "logic"})) for each in bench.placement.variants}, popular
    )
    users = [bench.user(f"user{n}", {}) for n in range(4000)]

    fallen = decide(bench, models, users).fallen

    assert fallen is not None
    picked = fallen.choice.chosen[:, 0]
    contents = fallen.pool.contents[picked]
    for key, share in zip(keys, (6 / 11, 3 / 11, 2 / 11), strict=True):
        mine = contents == key
        assert np.allclose(fallen.choice.propensity[mine, 0], share)
        assert abs(mine.mean() - share) < 4 * 0.5 / np.sqrt(len(users))


def test_a_muted_slot_shows_nothing_not_even_the_fallback() -> None:
    bench = Bench()
    content = bench.content("comics", "c1")
    popular = PopularContents(
        np.array([content], np.uint64),
        np.array([hashing.service_key("comics")], np.uint64),
        (("comics", "c1"),),
        np.ones(1),
    )
    models = FixedModels(
        {each.model: LoadedModel(build("linucb", {"arm": "logic"})) for each in bench.placement.variants}, popular
    )
    ann = bench.user("ann", {"comics/new": [content]}, reactions=[("mute", "weather", "x", 10.0)])
    decided = decide(bench, models, [ann])
    assert decided.fallen is None
    assert no_content(decided, 0).until.seconds == int(NOW_S - 10 + 3600)
