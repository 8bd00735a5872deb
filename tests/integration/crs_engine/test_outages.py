"""Redis away and back, snapshots good and bad, late answers: the engine goes on, and says what it did."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from banditmesh.bandits import hashing
from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.bandits.popularity import Popularity
from banditmesh.bandits.registry import build
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.valkey import Valkey
from banditmesh.runtime import keys
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.snapshots import Manifest, Pointer, Snapshots
from banditmesh.runtime.store import open_store
from services.crs_engine.models import FALLBACK
from tests.support.engine_world import MESH, World, engine_world
from tests.support.eventually import eventually, eventually_so

LEARNED = parse_mesh(MESH).placements["head"].experiment.variants["learned"]


def shown(names: list[tuple[str, str]], rewards: list[float]) -> Examples:
    """Examples of contents, by name, that earned those rewards."""
    n = len(names)
    contents = np.array([hashing.content_key(*name) for name in names], np.uint64)
    services = np.array([hashing.service_key(service) for service, _ in names], np.uint64)
    return Examples(
        contents,
        services,
        services,
        SparseRows.empty(n),
        np.array(rewards, np.float32),
        np.ones(n, np.float32),
        np.full(n, 1.7e9),
        np.zeros(n, np.bool_),
        names,
    )


async def publish(folder: Path, model: str, policy: Popularity, after: Pointer | None = None) -> Pointer:
    """Publish a model as the learner does."""
    store = open_store(f"file://{folder}/store")
    name, params = ("popularity", {}) if model == FALLBACK else (LEARNED.policy_name, LEARNED.policy_params)
    manifest = Manifest("head", model, name, dict(params), 0, 1_700_000_000_000, 5, {0: 5}, {0: 5})
    try:
        return await Snapshots(store, None).publish(manifest, policy.tensors(), after=after)
    finally:
        await store.close()


async def describe_popular(world: World) -> None:
    """Tell the engine what the contents of :func:`publish_popular` are."""
    await world.hands.content("weather", "sun", title="Sun")
    await world.hands.content("comics", "c9", title="Comic 9")
    world.parts.catalog.mark_changed()
    await world.parts.maintenance.once()


async def publish_popular(folder: Path) -> None:
    """A snapshot in which weather/sun is the most popular content."""
    policy = Popularity()
    policy.learn(shown([("weather", "sun"), ("comics", "c9")], [1.0, 0.2]))
    await publish(folder, FALLBACK, policy)


async def test_while_redis_is_away_the_fallback_answers_and_says_so_and_then_the_policy_again(tmp_path: Path) -> None:
    await publish_popular(tmp_path)
    with Valkey(tmp_path / "valkey", appendfsync="always") as valkey:
        async with engine_world(
            valkey.url, tmp_path, mesh=MESH.replace("redis_timeout: 2s", "redis_timeout: 200ms")
        ) as world:
            await world.hands.mapping("comics/new", {"ann": [await world.hands.content("comics", "c1")]})
            await describe_popular(world)
            await world.hands.reaction("bob", "mute", "weather", "sun", "elsewhere", world.server.clock.now_s() - 60)
            await world.shows("ann", lambda selection: selection.content.origin == events_pb2.ORIGIN_POLICY)
            assert (await world.select("bob")).content.content.content_id == "c9"

            valkey.kill()
            away = (await world.select("ann")).content
            assert away.origin == events_pb2.ORIGIN_FALLBACK_STORE_UNAVAILABLE
            assert (away.service, away.content.title) in {("weather", "Sun"), ("comics", "Comic 9")}
            # who was here before is remembered, with what he has muted
            muted = [(await world.select("bob")).content for _ in range(10)]
            assert {(each.origin, each.content.content_id) for each in muted} == {(away.origin, "c9")}
            assert away.logic == ""
            assert world.server.registry.get_sample_value("banditmesh_engine_redis_breaker_open") == 1

            valkey.start()
            back = await world.shows("ann", lambda selection: selection.content.origin == events_pb2.ORIGIN_POLICY)
            assert back.content.content.content_id == "c1"


async def test_an_engine_that_starts_without_redis_and_without_snapshots_serves_and_says_why_the_slot_is_empty(
    tmp_path: Path,
) -> None:
    with Valkey(tmp_path / "valkey") as valkey:
        url = valkey.url
    async with engine_world(url, tmp_path) as world:
        empty = (await world.select("ann")).no_content
        assert empty.reason == pb.NO_CONTENT_REASON_NO_CANDIDATES
        assert "Redis is away" in empty.message


async def test_an_engine_that_starts_without_redis_shows_the_popular_contents_that_the_last_one_has_kept(
    tmp_path: Path,
) -> None:
    await publish_popular(tmp_path)
    keep = tmp_path / "keep"
    with Valkey(tmp_path / "valkey", appendfsync="always") as valkey:
        async with engine_world(valkey.url, tmp_path, keep=keep) as world:
            await describe_popular(world)
        valkey.kill()
        async with engine_world(valkey.url, tmp_path, keep=keep) as world:
            kept = (await world.select("ann")).content
            assert kept.origin == events_pb2.ORIGIN_FALLBACK_STORE_UNAVAILABLE
            assert (kept.service, kept.content.title) in {("weather", "Sun"), ("comics", "Comic 9")}

            valkey.start()
            await world.hands.content("weather", "sun", title="Sun", hidden=True)
            await world.hands.content("comics", "c9", title="Comic nine")
            back = await world.shows("ann", lambda selection: selection.content.content.title == "Comic nine")
            assert back.content.origin == events_pb2.ORIGIN_FALLBACK_NO_CANDIDATES


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"key": "x"}',
        b'{"key": 1, "value": "?"}',
        b'{"key": -1, "value": ""}',
        b'{"key": 18446744073709551616, "value": ""}',
        b'{"key": Infinity, "value": ""}',
        b'{"key": 1, "value": "AAAA"}\n{"key": 1, "value": "AAAA"}',
        b"\xff",
    ],
    ids=range(11),
)
async def test_contents_that_were_kept_and_cannot_be_read_stop_no_engine(
    fresh_redis: str, tmp_path: Path, kept: bytes
) -> None:
    path = tmp_path / "keep" / "kept" / "contents.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(kept)
    async with engine_world(fresh_redis, tmp_path, keep=tmp_path / "keep") as world:
        assert (await world.select("ann")).HasField("no_content")


async def test_a_user_without_candidates_gets_a_popular_content_with_its_true_propensity(
    fresh_redis: str, tmp_path: Path
) -> None:
    await publish_popular(tmp_path)
    async with engine_world(fresh_redis, tmp_path) as world:
        await describe_popular(world)
        await world.hands.content("weather", "sun", title="Sun", hidden=True)
        await world.parts.maintenance.once()

        explained = await world.explain("nobody")
        content = (await world.select("nobody")).content

        assert content.origin == events_pb2.ORIGIN_FALLBACK_NO_CANDIDATES
        # the most popular one is hidden now, so the other one is all that is left
        assert (content.service, content.content.content_id) == ("comics", "c9")
        assert [(each.content_id, each.propensity) for each in explained.candidates] == [("c9", 1.0), ("sun", 0.0)]
        assert explained.candidates[1].removed_by == "filters/hidden"


async def test_a_content_that_its_provider_dropped_is_never_shown_by_the_fallback(
    fresh_redis: str, tmp_path: Path
) -> None:
    await publish_popular(tmp_path)
    async with engine_world(fresh_redis, tmp_path) as world:
        # nobody has described any of them: an app could show nothing but a name
        assert (await world.select("nobody")).no_content.reason == pb.NO_CONTENT_REASON_ALL_FILTERED
        await describe_popular(world)
        await world.shows("nobody", lambda selection: selection.content.content.content_id == "sun")

        await world.hands.store.client.delete(keys.content(hashing.content_key("weather", "sun")))
        world.parts.catalog.mark_changed()
        shown = [(await world.select("nobody")).content.content.content_id for _ in range(20)]
        assert set(shown) == {"c9"}


async def test_a_content_that_nobody_asked_for_is_among_the_newest_once_it_is_announced(
    fresh_redis: str, tmp_path: Path
) -> None:
    newest = MESH.replace("    experiment:", "    fallback: newest\n    experiment:")
    async with engine_world(fresh_redis, tmp_path, mesh=newest) as world:
        restarts = "banditmesh_engine_stream_restarts_total"
        await eventually_so(lambda: world.server.registry.get_sample_value(restarts))  # the stream is followed
        assert (await world.select("ann")).HasField("no_content")
        await world.hands.content("comics", "fresh", title="Fresh")

        async def is_shown() -> bool:
            await world.parts.maintenance.once()
            return (await world.select("ann")).content.content.title == "Fresh"

        await eventually(is_shown)


async def test_an_explanation_counts_nothing(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        await world.hands.mapping("comics/new", {"ann": [await world.hands.content("comics", "c1", hidden=True)]})
        await world.parts.live.reread()

        def removed() -> float | None:
            return world.server.registry.get_sample_value(
                "banditmesh_engine_candidates_removed_total", {"placement": "head", "filter": "hidden"}
            )

        assert (await world.explain("ann")).candidates[0].removed_by == "filters/hidden"
        assert removed() is None
        await world.select("ann")
        assert removed() == 1


async def test_a_newer_snapshot_is_swapped_in_beside_the_traffic_and_a_broken_one_is_refused(
    fresh_redis: str, tmp_path: Path
) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        logic = hashing.logic_key("comics", "new")
        await world.hands.mapping("comics/new", {"ann": [await world.hands.content("comics", "c1")]})
        await world.parts.live.reread()
        assert (await world.explain("ann")).model_version == 0

        policy = build(LEARNED.policy_name, LEARNED.policy_params)
        examples = shown([("comics", "c1")] * 50, [1.0] * 50)
        policy.learn(replace(examples, logics=np.full(50, logic, np.uint64)))
        first = await publish(tmp_path, LEARNED.model, policy)
        await world.parts.models.poll()
        explained = await world.explain("ann")
        assert explained.model_version == 1
        assert explained.candidates[0].score > 0.5

        await publish(tmp_path, LEARNED.model, policy, first)
        body = next((tmp_path / "store").rglob("00000002/tensors.safetensors"))
        body.write_bytes(body.read_bytes()[:-1] + b"\x01")
        await world.parts.models.poll()
        assert (await world.explain("ann")).model_version == 1
        status = await world.stub.GetModelStatus(pb.GetModelStatusRequest(placement="head"))
        learned = next(model for model in status.models if model.model == LEARNED.model)
        assert (learned.version, learned.policy, list(learned.variants)) == (1, "linucb", ["learned"])
        assert "sha256" in learned.refused
        assert (
            world.server.registry.get_sample_value(
                "banditmesh_engine_model_refused_total",
                {"placement": "head", "model": LEARNED.model, "reason": "sha256"},
            )
            == 1
        )


async def test_a_call_whose_deadline_passes_ends_and_the_next_one_is_answered(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey") as valkey:
        async with engine_world(
            valkey.url, tmp_path, mesh=MESH.replace("redis_timeout: 2s", "redis_timeout: 10s")
        ) as world:
            await world.select("ann")
            os.kill(valkey.pid, signal.SIGSTOP)
            request = pb.SelectContentRequest(placement="head", user_id="ann")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await world.stub.SelectContent(request, timeout=0.3)
            assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            os.kill(valkey.pid, signal.SIGCONT)
            async with asyncio.timeout(10):
                assert (await world.select("ann")).no_content.reason == pb.NO_CONTENT_REASON_NO_CANDIDATES
