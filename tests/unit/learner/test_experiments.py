"""Experiments are counted exactly once whatever dies, and a guardrail stops a variant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.experiments.report import VariantFigures
from banditmesh.experiments.tally import Tally
from banditmesh.runtime.addresses import FileAddress
from banditmesh.runtime.errors import DataLoss, NotFound, Unavailable
from banditmesh.runtime.experiments import digest, plan_of
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.selections import BUCKETS, write
from banditmesh.runtime.stops import Entry, Stops
from banditmesh.runtime.store import Store, StoredObject, open_store
from banditmesh.runtime.store.file import FileStore
from services.learner.experiment_reply import reply
from services.learner.experiment_shard import SETTLE_MS
from services.learner.experiments import Found
from tests.support.examples import T0_MS, Given, closing, example
from tests.unit.learner.parts import Rig, Topic, rig

TEXT = """
services: {films: {logics: [similar]}}
placements:
  home:
    sources: [films/similar]
    rewards: {targets: {purchase: 3.0}}
    experiment:
      salt: spring
      variants:
        old: {weight: %s, policy: {linucb: {dimension: 4}}}
        new: {weight: 50, policy: random}
      guardrails: {mute_rate: {worse_than_control_by: 0.05}}
"""
MESH = parse_mesh(TEXT % 50)
RAMPED = parse_mesh(TEXT % 10)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def shown(n: int, *, seed: int, mutes: Mapping[str, float] = {}, start: int = 0, decided_ms: int = 0) -> list[Given]:
    """Impressions of ``n`` users, by turns of ``old`` and ``new``; a fifth clicks, shares of ``mutes`` mute."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(start, start + n):
        one = example(source=(number % 2, number), reward=0.5)
        joined = one.joined
        joined.decision.variant = ("old", "new")[number // 2 % 2]
        joined.decision.user_id = f"user-{number}"
        joined.decision.decided_at_ms = decided_ms
        muted, clicked = rng.random() < mutes.get(joined.decision.variant, 0.0), rng.random() < 0.2
        joined.reactions.extend([events_pb2.OUTCOME_CLICK] * clicked + [events_pb2.OUTCOME_MUTE] * muted)
        joined.outcome = events_pb2.OUTCOME_MUTE if muted else events_pb2.OUTCOME_CLICK if clicked else 1
        records.append(Given(number % 2, T0_MS + 10 * number, one.SerializeToString()))
    return [*records, *closing(2, T0_MS + 10 * (start + n) + 5000)]


def topic_of(*records: list[Given], at_once: int = 1000) -> Topic:
    made = Topic(2, at_once)
    for each in records:
        made.append(each)
    return made


async def counted(one: Rig, n: int) -> Found:
    """Wait until ``n`` examples were counted."""
    while one.tallies["home"].examples < n:
        await one.turn()
    return await one.experiments.report("home", 0)


def by_name(found: Found) -> dict[str, VariantFigures]:
    return {each.name: each for each in found.report.variants}


async def test_every_example_counts_once_for_its_variant(store: Store) -> None:
    async with rig(topic_of(shown(400, seed=1)), store, counted=MESH) as one:
        variants = by_name(await counted(one, 400))
        assert {name: (each.users, each.counts["impressions"]) for name, each in variants.items()} == {
            "old": (200, 200),
            "new": (200, 200),
        }
        answer = reply(await one.experiments.report("home", 0))
        clicks = sum(each.clicks for each in answer.variants)
        assert clicks == sum(each.counts["click"] for each in variants.values())
        assert clicks == pytest.approx(80, abs=30)
        assert [each.impressions for each in answer.days] == [200, 200]
        assert answer.variants[1].metrics[0].verdict == "open"
        assert not answer.variants[0].metrics[1].HasField("difference")


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_dies_nothing_is_counted_twice_or_missed(seed: int, store: Store, tmp_path: Path) -> None:
    records = shown(200, seed=seed)
    async with rig(topic_of(records), open_store((tmp_path / "other").as_uri()), counted=MESH) as one:
        await counted(one, 200)
        undisturbed = one.tallies["home"].tensors()
    rng = np.random.default_rng(seed)
    sent = 0
    while sent < len(records):
        sent += int(rng.integers(1, 80))
        async with rig(topic_of(records[:sent], at_once=int(rng.integers(1, 30))), store, counted=MESH) as one:
            for _ in range(int(rng.integers(1, 8))):
                await one.turn()
            if rng.random() < 0.6:  # else: killed before it could publish
                await one.publisher.publish_all()
    async with rig(topic_of(records), store, counted=MESH) as one:
        await counted(one, 200)
        assert same(one.tallies["home"].tensors(), undisturbed)


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


STARTING = parse_mesh((TEXT % 50).replace("salt: spring", "salt: spring\n      starts: 2027-01-31T12:00:00Z"))


async def test_what_users_did_before_the_start_sharpens_the_comparison(store: Store) -> None:
    start_ms = int(STARTING.placements["home"].experiment.starts_s * 1000)
    before = with_tastes(shown(400, seed=1, decided_ms=start_ms - 1))
    after = with_tastes(shown(400, seed=2, start=400, decided_ms=start_ms))
    async with rig(topic_of(before, after), store, counted=STARTING) as one:
        answer = reply(await counted(one, 800))
    assert [(each.impressions, each.pre_period_impressions) for each in answer.variants] == [(200, 200), (200, 200)]
    assert answer.pre_period_end.ToMilliseconds() == start_ms
    assert [(each.pre_period, each.impressions) for each in answer.days] == [(True, 200)] * 2 + [(False, 200)] * 2
    assert answer.variants[1].metrics[0].variance_removed > 0.5


async def test_a_tally_of_before_days_had_a_period_is_read(store: Store) -> None:
    async with rig(topic_of(shown(100, seed=1)), store, counted=MESH) as one:
        await counted(one, 100)
        tally = one.tallies["home"].tally
    older = {name: tensor for name, tensor in tally.tensors().items() if not name.endswith("day_periods")}
    assert same(Tally.from_tensors(older).tensors(), tally.tensors())


def with_tastes(records: list[Given]) -> list[Given]:
    """The same, of users who come again every 400, and each of whom is worth the same to us each time."""
    found = []
    for each in records:
        one = events_pb2.Example.FromString(each.value)
        if one.HasField("joined"):
            number = int(one.joined.decision.user_id.removeprefix("user-")) % 400
            one.joined.decision.user_id = f"user-{number}"
            one.joined.reward = number % 7 / 7
        found.append(each._replace(value=one.SerializeToString()))
    return found


async def test_a_change_of_weights_begins_another_era_and_the_one_before_stays(store: Store) -> None:
    first = shown(100, seed=1)
    async with rig(topic_of(first), store, counted=MESH) as one:
        await counted(one, 100)
        await one.publisher.publish_all()
        changed_ms = int(one.clock.now_s() * 1000)
    later = shown(60, seed=2, start=1000, decided_ms=changed_ms + SETTLE_MS)
    meanwhile = shown(20, seed=3, start=2000, decided_ms=changed_ms + SETTLE_MS - 1)
    shortly_before = shown(10, seed=4, start=3000, decided_ms=changed_ms - SETTLE_MS)
    async with rig(topic_of(first, later, meanwhile, shortly_before), store, counted=RAMPED) as one:
        now = await counted(one, 190)
        assert (now.eras, now.report.began_ms) == (2, changed_ms + SETTLE_MS)
        assert sum(each.counts["impressions"] for each in now.report.variants) == 60
        assert by_name(now)["old"].share == pytest.approx(10 / 60)
        before = await one.experiments.report("home", 1)
        assert sum(each.counts["impressions"] for each in before.report.variants) == 100
        assert (now.unsettled, reply(now).unsettled_impressions) == (30, 30)
        await one.publisher.publish_all()
    async with rig(topic_of(first, later, meanwhile, shortly_before), store, counted=RAMPED) as one:
        now = await counted(one, 190)
        assert (now.eras, now.unsettled) == (2, 30)
        with pytest.raises(NotFound, match="there are 2 eras"):
            await one.experiments.report("home", 2)


async def test_a_guardrail_stops_a_variant_writes_down_why_and_one_call_resumes_it(store: Store) -> None:
    records = shown(800, seed=1, mutes={"old": 0.02, "new": 0.4})
    async with rig(topic_of(records), store, counted=MESH) as one:
        await counted(one, 800)
        (breach,) = await one.experiments.check("home")
        assert (breach.variant, breach.metric) == ("new", "mute_rate")
        stop = (await Stops(store).get("home")).stopped["new"]
        assert stop.who == "guardrail mute_rate, learner 0"
        assert "worse by at least" in stop.why
        assert one.metric("experiment_variant_stopped", placement="home", variant="new") == 1
        assert await one.experiments.check("home") == []
        found = await one.experiments.report("home", 0)
        assert (found.eras, by_name(found)["new"].share) == (2, 0.0)
        assert reply(found).variants[1].stopped.why == stop.why

        was = await one.experiments.resume("home", "new", "ops", "mutes were a bug of the app")
        assert was == stop
        assert one.metric("experiment_variant_stopped", placement="home", variant="new") == 0
        history = (await Stops(store).get("home")).history
        assert [(each.action, each.who) for each in history] == [("stopped", stop.who), ("resumed", "ops")]
        # The new era has nobody yet, so the numbers of before do not stop it at once again.
        assert await one.experiments.check("home") == []
        with pytest.raises(NotFound, match="is not stopped"):
            await one.experiments.resume("home", "new", "ops", "")


class Slow(FileStore):
    """A store whose next answer about a change is on its way until it is let through; all others come at once."""

    def __init__(self, address: FileAddress) -> None:
        super().__init__(address)
        self.on_its_way: asyncio.Event | None = None
        self.arrives = asyncio.Event()

    async def _run(self, key: str, operation: Callable[[Path], Any]) -> Any:
        try:
            return operation(self._root / key)  # in no thread, so that a turn of the event loop is enough
        except OSError as error:
            raise self._translated(error, key) from error

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        found = await super().get_if_changed(key, etag)
        if self.on_its_way is not None:
            held, self.on_its_way = self.on_its_way, None
            held.set()
            await self.arrives.wait()
        return found


async def test_a_look_that_began_before_a_resumption_does_not_undo_it(tmp_path: Path) -> None:
    store = Slow(FileAddress(tmp_path))
    entry = Entry("new", "stopped", 1, "a test", "")
    await Stops(store).stop("home", [entry])
    await Stops(store).resume("home", Entry("new", "resumed", 2, "a test", ""))
    async with rig(topic_of(shown(40, seed=1)), store, counted=MESH) as one:
        await counted(one, 40)
        await Stops(store).stop("home", [entry])
        held = store.on_its_way = asyncio.Event()
        look = asyncio.create_task(one.experiments.check("home"))
        await held.wait()  # it has read that the variant is stopped
        resumption = asyncio.create_task(one.experiments.resume("home", "new", "ops", "a bug"))
        for _ in range(10):  # as far as it comes
            await asyncio.sleep(0)
        assert not (await Stops(store).get("home")).stopped
        store.arrives.set()
        await asyncio.gather(look, resumption)
        assert one.metric("experiment_variant_stopped", placement="home", variant="new") == 0
        assert one.tallies["home"].tally.eras[-1].plan.weights["new"] > 0


async def test_variants_that_are_alike_are_not_stopped(store: Store) -> None:
    async with rig(topic_of(shown(800, seed=1, mutes={"old": 0.2, "new": 0.2})), store, counted=MESH) as one:
        await counted(one, 800)
        assert await one.experiments.check("home") == []


async def test_slots_that_stay_empty_are_counted_by_the_engines_and_stop_a_variant(store: Store) -> None:
    mesh = parse_mesh((TEXT % 50).replace("mute_rate: {worse", "no_content_rate: {worse"))
    name, rng = digest(plan_of(mesh.placements["home"])), np.random.default_rng(1)
    for process in ("one", "two"):
        counts = np.zeros((2, 2, BUCKETS))
        counts[0] = 10
        counts[1] = rng.binomial(10, [[0.1], [0.5]], (2, BUCKETS))
        await write(store, process, 1.7e9, {"home": {name: (("old", "new"), counts)}})
    await store.put("experiments/selections/broken.json", b"{")
    async with rig(topic_of(shown(100, seed=1)), store, counted=mesh) as one:
        found = await counted(one, 100)
        rates = {each.name: each.figures["no_content_rate"] for each in found.report.variants}
        assert rates["old"].value == pytest.approx(0.1, abs=0.02)
        assert rates["new"].verdict == "worse"
        (breach,) = await one.experiments.check("home")
        assert (breach.variant, breach.metric) == ("new", "no_content_rate")


async def test_a_stop_outlives_a_restart(store: Store) -> None:
    await Stops(store).stop("home", [Entry("new", "stopped", 1, "a test", "")])
    async with rig(topic_of(shown(40, seed=1)), store, counted=MESH) as one:
        found = await counted(one, 40)
        assert (found.eras, by_name(found)["new"].share) == (1, 0.0)


async def test_another_replica_answers_from_the_store(store: Store) -> None:
    async with rig(topic_of(shown(40, seed=1)), store, counted=MESH) as one:
        await counted(one, 40)
        await one.publisher.publish_all()
        one.experiments._shards = {}
        found = await one.experiments.report("home", 0)
        assert by_name(found)["old"].counts["impressions"] == 20


async def test_stops_that_cannot_be_read_stop_and_resume_nothing(store: Store) -> None:
    async with rig(topic_of(shown(40, seed=1)), store, counted=MESH) as one:
        await counted(one, 40)
        await store.put("experiments/home/stops.json", b"{")
        with pytest.raises(DataLoss, match="cannot be read"):
            await one.experiments.check("home")
        assert one.tallies["home"].tally.eras[-1].plan.shares["new"] == 0.5


async def test_what_is_not_there_is_said(store: Store) -> None:
    async with rig(Topic(2), store, counted=MESH) as one:
        with pytest.raises(NotFound, match="no such placement"):
            await one.experiments.report("hmoe", 0)
        one.experiments._shards = {}
        with pytest.raises(NotFound, match="nothing was counted yet"):
            await one.experiments.report("home", 0)


async def test_before_the_shards_are_restored_there_is_no_report(store: Store) -> None:
    async with rig(Topic(2), store, counted=MESH) as one:
        one.tallies["home"].tally.eras.clear()
        with pytest.raises(Unavailable):
            await one.experiments.report("home", 0)
