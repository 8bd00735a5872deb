"""The whole pipeline over batches made by hand: who gets what, from whom, and with which propensity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from banditmesh.bandits import hashing
from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.bandits.popularity import Popularity
from banditmesh.bandits.registry import build
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.events.v1.events_pb2 import Origin
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.retrieval_options import EVERYBODYS
from services.crs_engine.catalog import Fetched
from services.crs_engine.models import FALLBACK, LoadedModel
from services.crs_engine.pipeline.batch import Answered
from services.crs_engine.pipeline.retrievers import Newest
from services.crs_engine.pipeline.retrievers import Popularity as PopularityRetriever
from services.crs_engine.popular_contents import PopularContents
from tests.support.engine_batch import NOW_S, Bench, BenchReads, FixedModels, decisions, run
from tests.support.engine_world import MESH

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
        tensors["readout"] = rng.normal(size=(n, d + 2, d)).astype(np.float32)
        tensors["last_s"] = np.zeros(n)
        loaded[variant.model] = LoadedModel(type(policy).from_tensors(policy.params, tensors), version=4)
    return FixedModels({**loaded, FALLBACK: LoadedModel(Popularity())})


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


def chosen(answered: Answered) -> dict[str, list[tuple[str, str, float, tuple[int, ...]]]]:
    """By user: content, variant, propensity and features of what is shown."""
    return {
        user: [(each.content_id, each.variant, round(each.propensity, 6), tuple(each.features.ids)) for each in shown]
        for user, shown in decisions(answered).items()
    }


def untrained(bench: Bench, popular: Sequence[int] = ()) -> FixedModels:
    """Models at their priors, and a snapshot of what is popular: these comics, the most popular one first."""
    policy = Popularity()
    if popular:
        keys = np.array(popular, np.uint64)
        policy.learn(
            Examples.checked(
                np.repeat(keys, 100),
                np.zeros(len(keys) * 100, np.uint64),
                np.zeros(len(keys) * 100, np.uint64),
                SparseRows.empty(len(keys) * 100),
                np.repeat(np.linspace(1, 0.5, len(keys)), 100),
                np.ones(len(keys) * 100),
                np.full(len(keys) * 100, NOW_S),
                np.zeros(len(keys) * 100, np.bool_),
            )
        )
    loaded = {each.model: LoadedModel(build("linucb", {"arm": "logic"})) for each in bench.placement.variants}
    comics = np.full(len(popular), hashing.service_key("comics"), np.uint64)
    return FixedModels(
        {**loaded, FALLBACK: LoadedModel(policy)},
        PopularContents(np.array(popular, np.uint64), comics, np.ones(len(comics), np.float32)),
    )


def origins(answered: Answered) -> dict[str, list[tuple[str, str]]]:
    """By user: content and origin of what is shown."""
    return {
        user: [(each.content_id, Origin.Name(each.origin).removeprefix("ORIGIN_")) for each in shown]
        for user, shown in decisions(answered).items()
    }


def with_line(line: str) -> str:
    """The mesh with another line in its placement."""
    return MESH.replace("    experiment:", f"    {line}\n    experiment:")


def test_a_batch_of_fifty_decides_what_fifty_batches_of_one_decide() -> None:
    bench = Bench(TWO)
    users, models = fill(bench), trained(bench)
    together = chosen(run(bench, models, users))
    alone: dict[str, list[tuple[str, str, float, tuple[int, ...]]]] = {}
    for user in users:
        alone |= chosen(run(bench, models, [user]))
    assert together == alone
    assert len({content for shown in together.values() for content, *_ in shown}) > 10
    assert {variant for shown in together.values() for _, variant, *_ in shown} == {"learned", "other"}


def test_a_ranked_list_begins_with_what_a_single_selection_shows() -> None:
    bench = Bench(TWO)
    users, models = fill(bench), trained(bench)
    single, ranked = chosen(run(bench, models, users)), chosen(run(bench, models, users, count=5))
    for user in users:
        assert ranked[user][:1] == single[user]
        assert len({content for content, *_ in ranked[user]}) == len(ranked[user])


def test_the_fallback_draws_by_rank_with_the_propensities_that_it_states() -> None:
    bench = Bench()
    keys = [bench.content("comics", f"c{n}") for n in range(3)]
    users = [bench.user(f"user{n}", {}) for n in range(4000)]

    shown = [each for (each,) in decisions(run(bench, untrained(bench, keys), users)).values()]

    assert {each.origin for each in shown} == {events_pb2.ORIGIN_FALLBACK_NO_CANDIDATES}
    assert {(each.logic, each.model) for each in shown} == {("", "")}
    for name, share in zip(("c0", "c1", "c2"), (6 / 11, 3 / 11, 2 / 11), strict=True):
        mine = [each.propensity for each in shown if each.content_id == name]
        assert np.allclose(mine, share)
        assert abs(len(mine) / len(users) - share) < 4 * 0.5 / np.sqrt(len(users))


def test_the_fallback_fills_a_list_that_is_too_short_and_repeats_nothing() -> None:
    bench = Bench()
    keys = [bench.content("comics", f"c{n}") for n in range(4)]
    ann, bob = bench.user("ann", {"comics/new": keys[:2]}), bench.user("bob", {"comics/new": keys})
    lists = origins(run(bench, untrained(bench, keys[1:]), [ann, bob], count=4))

    assert {content for content, _ in lists["ann"]} == {"c0", "c1", "c2", "c3"}
    assert [origin for _, origin in lists["ann"]] == ["POLICY"] * 2 + ["FALLBACK_NO_CANDIDATES"] * 2
    assert [origin for _, origin in lists["bob"]] == ["POLICY"] * 4


def test_the_positions_of_a_list_that_was_filled_go_on_and_its_propensities_are_conditional() -> None:
    bench = Bench()
    keys = [bench.content("comics", f"c{n}") for n in range(3)]
    ann = bench.user("ann", {"comics/new": keys[:1]})
    shown = decisions(run(bench, untrained(bench, keys), [ann], count=3))["ann"]
    assert [each.position for each in shown] == [0, 1, 2]
    # c0 is on the list already: of the two that are left the better one is drawn with 2/3, and then there is but one
    second = 2 / 3 if shown[1].content_id == "c1" else 1 / 3
    assert [each.propensity for each in shown] == pytest.approx([1.0, second, 1.0])


def test_a_chain_asks_the_next_fallback_for_what_the_first_one_leaves_open() -> None:
    bench = Bench(with_line("fallback: [popularity, newest]"))
    popular = [bench.content("comics", "popular")]
    bench.content("comics", "young", age_s=60)
    bench.content("comics", "old", age_s=900)
    lists = chosen(run(bench, untrained(bench, popular), [bench.user("ann", {})], count=3))
    assert lists["ann"][0][0] == "popular"
    assert {content for content, *_ in lists["ann"][1:]} == {"young", "old"}
    assert lists["ann"][1][2] == pytest.approx(2 / 3 if lists["ann"][1][0] == "young" else 1 / 3, abs=1e-5)


def test_without_a_fallback_nobody_is_asked() -> None:
    bench = Bench(with_line("fallback: none"))
    answered = run(bench, untrained(bench, [bench.content("comics", "c1")]), [bench.user("ann", {})])
    assert answered.outcomes[0].empty is not None
    assert answered.outcomes[0].empty.message == "the user has no candidates, and the placement has no fallback"


@pytest.mark.parametrize("what", ["hidden", "expired", "dropped", "muted", "clicked", "unheard of"])
def test_the_fallback_obeys_every_filter_that_the_candidates_of_the_sources_obey(what: str) -> None:
    bench = Bench()
    fields: dict[str, object] = {"hidden": {"hidden": True}, "expired": {"expires_s": NOW_S}}.get(what, {})
    bad = bench.content("comics", "bad", **fields)
    if what == "dropped":
        bench.catalog.put([Fetched(bad, None)], 0.0)
    if what == "unheard of":
        bad = hashing.content_key("comics", "bad2")
    good = bench.content("comics", "good")
    reactions = [(kind, "comics", "bad", 7200.0) for kind in ("mute", "click") if what.startswith(kind)]
    mute = MESH.replace("    experiment:", "    mute: {service_for: 0}\n    experiment:")
    bench.mesh = parse_mesh(mute)
    users = [bench.user(f"user{n}", {}, reactions=reactions) for n in range(50)]
    shown = chosen(run(bench, untrained(bench, [bad, good]), users))
    assert {content for each in shown.values() for content, *_ in each} == {"good"}


def test_the_fallback_shows_a_known_user_eligible_services_alone_and_a_stranger_every_service() -> None:
    bench = Bench(with_line("eligible: used_services"))
    comic, models = bench.content("comics", "c1"), None
    models = untrained(bench, [comic])
    users = [
        bench.user("reader", {}, profile={"used_services": ["comics"]}),
        bench.user("other", {}, profile={"used_services": ["weather"]}),
        bench.user("silent", {}, profile={"age": "20s"}),
        bench.user("stranger", {"comics/new": [comic]}),
    ]
    lists = origins(run(bench, models, users))
    assert {user: bool(shown) for user, shown in lists.items()} == {
        "reader": True,
        "other": False,
        "silent": True,
        "stranger": True,
    }
    assert lists["stranger"] == [("c1", "FALLBACK_NO_CANDIDATES")]


def test_the_fallback_shows_no_service_that_the_placement_has_not() -> None:
    bench = Bench(MESH.replace("weather/today, weather/tomorrow, comics/new, comics/similar", "weather/today"))
    models = untrained(bench, [bench.content("comics", "c1")])
    assert chosen(run(bench, models, [bench.user("ann", {})]))["ann"] == []


def test_a_muted_slot_shows_nothing_not_even_the_fallback() -> None:
    bench = Bench()
    content = bench.content("comics", "c1")
    ann = bench.user("ann", {"comics/new": [content]}, reactions=[("mute", "weather", "x", 10.0)])
    (outcome,) = run(bench, untrained(bench, [content]), [ann]).outcomes
    assert not outcome.contents
    assert outcome.empty is not None
    assert outcome.empty.until.seconds == int(NOW_S - 10 + 3600)


def test_contents_of_the_fallback_are_asked_for_where_it_will_be_needed_and_redis_answers() -> None:
    bench = Bench()
    own, unheard_of = bench.content("comics", "c1"), hashing.content_key("comics", "c2")
    ann, bob = bench.user("ann", {"comics/new": [own]}), bench.user("bob", {})
    models = untrained(bench, [own, unheard_of])
    for users, reached, asked in (([ann], True, []), ([ann, bob], True, [[unheard_of]]), ([ann, bob], False, [])):
        reads = BenchReads(bench, reached)
        run(bench, models, users, reads=reads)
        assert reads.asked == asked


def test_while_redis_is_away_what_is_remembered_of_a_user_counts() -> None:
    bench = Bench()
    keys = [bench.content("comics", f"c{n}") for n in range(2)]
    ann = bench.user("ann", {"comics/new": keys}, reactions=[("click", "comics", "c0", 60.0)])
    slot = bench.user("slot", {"comics/new": keys}, reactions=[("mute", "weather", "x", 60.0)])
    answered = run(bench, untrained(bench, keys), [ann, slot], reads=BenchReads(bench, reached=False))
    assert origins(answered) == {"ann": [("c1", "FALLBACK_STORE_UNAVAILABLE")], "slot": []}


def test_while_redis_is_away_a_mesh_without_a_popularity_yet_shows_nothing_and_says_why_unless_newest_fills_in() -> (
    None
):
    bench = Bench()
    ann = bench.user("ann", {"comics/new": [bench.content("comics", "c1")]})
    (outcome,) = run(bench, untrained(bench), [ann], reads=BenchReads(bench, reached=False)).outcomes
    assert outcome.empty is not None
    assert outcome.empty.reason == pb.NO_CONTENT_REASON_NO_CANDIDATES
    assert outcome.empty.message == (
        "Redis is away, so the user's candidates are not known, and the fallback has none either"
    )

    bench = Bench(with_line("fallback: [popularity, newest]"))
    ann = bench.user("ann", {"comics/new": [bench.content("comics", "c1", age_s=60)]})
    answered = run(bench, untrained(bench), [ann], reads=BenchReads(bench, reached=False))
    assert origins(answered) == {"ann": [("c1", "FALLBACK_STORE_UNAVAILABLE")]}


def test_a_retriever_may_be_a_source_and_its_candidates_go_through_the_policy() -> None:
    text = MESH.replace("sources: [weather/today", "sources: [newest, weather/today")
    bench = Bench(text)
    keys = [bench.content("comics", f"c{n}") for n in range(3)]
    ann = bench.user("ann", {"comics/new": keys[:1]})
    shown = decisions(run(bench, untrained(bench), [ann], count=5))["ann"]
    # c0 is proposed by both, and the source that stands first has it
    assert {(each.content_id, each.logic) for each in shown} == {(f"c{n}", "newest") for n in range(3)}
    assert {each.origin for each in shown} == {events_pb2.ORIGIN_POLICY}
    assert all(len(each.features.ids) > 3 for each in shown)


def test_every_retriever_that_mesh_yaml_may_name_exists() -> None:
    assert set(EVERYBODYS) == {Newest.name, PopularityRetriever.name}
