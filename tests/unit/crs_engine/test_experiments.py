"""A user stays in a variant, shares are as configured, and ramping moves as few as it can."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.runtime.addresses import FileAddress
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.selections import read
from banditmesh.runtime.stops import Entry, Stops
from banditmesh.runtime.store import StoredObject
from banditmesh.runtime.store.file import FileStore
from services.crs_engine.compiled_placement import CompiledPlacement, compile_placements
from services.crs_engine.experiments import Assignment, Part
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.selection_counts import SelectionCounts
from services.crs_engine.stopped_variants import MOST_S, StoppedVariants

USERS = [f"user-{number}" for number in range(20_000)]


def test_a_user_stays_in_a_variant_alone_and_among_others() -> None:
    assignment = Assignment("spring", {"a": 1, "b": 1, "c": 1})
    together = assignment.of(USERS[:200]).tolist()
    assert [int(assignment.of([user])[0]) for user in USERS[:200]] == together


@pytest.mark.parametrize("weights", [(90.0, 10.0), (1.0, 1.0, 2.0), (0.0, 3.0, 1.0)])
def test_shares_are_in_proportion_to_the_weights(weights: tuple[float, ...]) -> None:
    assignment = Assignment("spring", {f"v{number}": weight for number, weight in enumerate(weights)})
    shares = np.bincount(assignment.of(USERS), minlength=len(weights)) / len(USERS)
    # four standard deviations of a share of 20 000
    assert np.abs(shares - np.array(weights) / sum(weights)).max() < 4 * 0.5 / np.sqrt(len(USERS))


def test_ramping_a_variant_up_moves_users_into_it_alone_and_no_more_than_needed() -> None:
    before = Assignment("spring", {"a": 90, "b": 10, "c": 10}).of(USERS)
    after = Assignment("spring", {"a": 90, "b": 30, "c": 10}).of(USERS)
    moved = before != after
    assert (after[moved] == 1).all()
    assert moved.mean() == pytest.approx(30 / 130 - 10 / 110, abs=0.015)


def test_a_new_variant_takes_users_from_the_others_and_mixes_nothing_else() -> None:
    before = Assignment("spring", {"a": 1, "b": 1}).of(USERS)
    after = Assignment("spring", {"a": 1, "b": 1, "new": 1}).of(USERS)
    assert ((before == after) | (after == 2)).all()


def test_another_salt_is_another_experiment() -> None:
    weights = {"a": 1.0, "b": 1.0}
    spring, summer = Assignment("spring", weights).of(USERS), Assignment("summer", weights).of(USERS)
    assert (spring == summer).mean() == pytest.approx(0.5, abs=0.015)


def test_the_order_in_which_variants_are_written_changes_nobody() -> None:
    one, other = Assignment("s", {"a": 1, "b": 2}), Assignment("s", {"b": 2, "a": 1})
    assert [one.names[at] for at in one.of(USERS[:500])] == [other.names[at] for at in other.of(USERS[:500])]


def test_a_variant_of_weight_zero_gets_nobody() -> None:
    assert (Assignment("s", {"off": 0.0, "a": 1.0, "b": 1.0}).of(USERS) != 0).all()


def test_a_change_of_several_weights_at_once_moves_as_few_users_as_any_rule_without_memory_can() -> None:
    old, new = {"a": 90.0, "b": 10.0, "c": 0.0}, {"a": 50.0, "b": 10.0, "c": 40.0}
    moved = (Assignment("spring", old).of(USERS) != Assignment("spring", new).of(USERS)).mean()
    x, y = (np.array(list(each.values())) / 100 for each in (old, new))
    with np.errstate(divide="ignore", invalid="ignore"):
        stay = sum(1 / np.fmax(x / x[at], y / y[at]).sum() for at in (0, 1))  # Moulton and Jiang 2018, equation 1
    assert moved == pytest.approx(1 - stay, abs=0.015)
    assert 1 - stay < 0.43  # the shares themselves differ by 0.40


def test_a_stopped_variants_users_go_to_the_others_and_come_back_just_as_they_were() -> None:
    weights = {"a": 1.0, "b": 1.0, "c": 2.0}
    before, stopped = Assignment("s", weights).of(USERS), Assignment("s", {**weights, "c": 0.0}).of(USERS)
    assert (stopped[before != 2] == before[before != 2]).all()
    assert (Assignment("s", weights).of(USERS) == before).all()


def test_experiments_of_one_layer_share_no_user_and_a_wider_part_keeps_the_narrower_ones() -> None:
    weights = {"a": 1.0, "b": 1.0}
    first = Assignment("one", weights, part=Part("ranking", 0.0, 0.3))
    second = Assignment("two", weights, part=Part("ranking", 0.3, 1.0))
    inside = first.of(USERS) < 2
    assert first.names[-1] == "not_in_layer"
    assert (inside != (second.of(USERS) < 2)).all()
    assert inside.mean() == pytest.approx(0.3, abs=0.015)
    wider = Assignment("one", weights, part=Part("ranking", 0.0, 0.6)).of(USERS)
    assert (wider[inside] == first.of(USERS)[inside]).all()


def test_being_in_a_layer_says_nothing_of_the_variant() -> None:
    variants = Assignment("one", {"a": 1.0, "b": 1.0}, part=Part("ranking", 0.0, 0.3)).of(USERS)
    assert (variants[variants < 2] == 0).mean() == pytest.approx(0.5, abs=0.03)


def test_the_holdout_is_the_same_in_all_experiments_and_grows_by_new_users_alone() -> None:
    weights = {"a": 1.0, "b": 1.0}
    one, other = Assignment("one", weights, holdout=0.1), Assignment("two", weights, holdout=0.1)
    held = one.of(USERS) == one.names.index("holdout")
    assert held.mean() == pytest.approx(0.1, abs=0.01)
    assert (held == (other.of(USERS) == 2)).all()
    larger = Assignment("one", weights, holdout=0.2, part=Part("ranking", 0.0, 0.5))
    assert larger.names == ("a", "b", "holdout", "not_in_layer")
    assert (larger.of(USERS)[held] == 2).all()


def test_a_lone_variant_still_has_a_holdout() -> None:
    assert set(Assignment("one", {"a": 1.0}, holdout=0.5).of(USERS).tolist()) == {0, 1}


def placement(more: str) -> CompiledPlacement:
    mesh = parse_mesh(f"""
services: {{films: {{logics: [similar]}}}}
placements:
  home:
    sources: [films/similar]
    experiment:
      variants:
        old: {{weight: 1, policy: random}}
        new: {{weight: 1, policy: linucb, explore: ucb}}
      {more}
""")
    return compile_placements(mesh)["home"]


ASIDE = """control: new
      aa: true
      holdout: 0.1
      layer: {name: x, users: [0, 0.5]}
"""


def served(of: CompiledPlacement) -> dict[str, str]:
    return {each.name: each.model.partition("-")[0] for each in of.variants}


def test_until_it_starts_and_in_a_a_mode_all_variants_are_served_by_the_controls_policy() -> None:
    starting = placement("starts: 2027-01-31T12:00:00Z")
    start_s = starting.config.experiment.starts_s
    starting.take((), start_s - 1)
    assert served(starting) == {"old": "random", "new": "random"}
    starting.take((), start_s)
    assert served(starting) == {"old": "random", "new": "linucb"}
    assert served(placement("aa: true")) == {"old": "random", "new": "random"}
    assert served(placement(ASIDE)) == {
        "old": "linucb",
        "new": "linucb",
        "holdout": "linucb",
        "not_in_layer": "linucb",
    }


def test_when_every_variant_is_stopped_the_control_serves() -> None:
    stopped = placement("salt: s")
    stopped.take({"old", "new"}, 0.0)
    assert set(stopped.assignment.of(USERS[:100]).tolist()) == {0}


class Away(FileStore):
    """A store that can be away."""

    away = False

    async def get(self, key: str) -> StoredObject:
        if self.away:
            raise Unavailable("the store is away")
        return await super().get(key)

    async def put(self, key: str, body: bytes) -> str:
        if self.away:
            raise Unavailable("the store is away")
        return await super().put(key, body)

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        if self.away:
            raise Unavailable("the store is away")
        return await super().get_if_changed(key, etag)


async def test_a_stop_is_in_force_within_a_minute_and_stays_while_the_store_is_away(tmp_path: Path) -> None:
    store, home, clock = Away(FileAddress(tmp_path)), placement("salt: s"), ManualClock()
    registry = CollectorRegistry()
    stops = Stops(store)
    follower = StoppedVariants({"home": home}, stops, clock, EngineMetrics(registry))
    task = asyncio.create_task(follower.run(every_s=3600.0))

    def served() -> set[int]:
        return set(home.assignment.of(USERS[:100]).tolist())

    async def a_minute_later() -> None:
        await clock.wait_for_sleepers()
        await clock.advance(MOST_S)
        await clock.wait_for_sleepers()

    await clock.wait_for_sleepers()
    assert served() == {0, 1}
    await stops.stop("home", [Entry("new", "stopped", 1, "guardrail", "why")])
    await a_minute_later()
    assert served() == {0}
    store.away = True
    await a_minute_later()
    assert registry.get_sample_value("banditmesh_engine_stops_unread_total", {"placement": "home"}) == 1
    assert served() == {0}
    store.away = False
    await stops.resume("home", Entry("new", "resumed", 2, "ops", ""))
    await a_minute_later()
    assert served() == {0, 1}
    task.cancel()


async def test_selections_and_empty_slots_are_written_by_variant_and_what_was_not_is_written_next(
    tmp_path: Path,
) -> None:
    store, home = Away(FileAddress(tmp_path)), placement("salt: s")
    registry, clock = CollectorRegistry(), ManualClock()
    counts = SelectionCounts(store, clock, EngineMetrics(registry))
    users = USERS[:400]
    variants = home.assignment.of(users)
    store.away = True
    counts.add(home, users, variants, variants == 1)
    await counts.write()
    assert registry.get_sample_value("banditmesh_engine_selections_unwritten_total") == 1
    store.away = False
    await counts.write()
    counts.add(home, users[:10], variants[:10], np.zeros(10, np.bool_))
    await counts.write()
    by_variant = (await read(store, clock.now_s()))["home", home.plan]
    assert by_variant["old"][0].sum() + by_variant["new"][0].sum() == 410
    assert by_variant["old"][1].sum() == 0
    assert by_variant["new"][1].sum() == (variants == 1).sum()
    assert await read(store, clock.now_s() + 101 * 86400) == {}
