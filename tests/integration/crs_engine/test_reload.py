"""The engine follows mesh.yaml: what is changed there is in effect without a restart, and what is wrong never."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.pod_events import EventType, PodEvents
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.reload import Reloader
from banditmesh.runtime.store.file import FileStore
from services.crs_engine.bootstrap import CATALOG, build
from services.crs_engine.settings import EngineSettings
from tests.support.engine_world import MESH, TOKEN_KEYS, World, engine_world

NEW_PLACEMENT = """
  foot:
    sources: [comics/new]
"""


class Told(PodEvents):
    """Keeps what an operator would see."""

    async def send(self, kind: EventType, reason: str, message: str) -> None:
        TOLD.append((kind, reason, message))


TOLD: list[tuple[EventType, str, str]] = []


@dataclass
class Reloading:
    world: World
    config: Path
    reloader: Reloader

    def reloads(self, result: str) -> float:
        return self.world.server.registry.get_sample_value("banditmesh_mesh_reloads_total", {"result": result}) or 0.0

    @property
    def stale(self) -> float | None:
        return self.world.server.registry.get_sample_value("banditmesh_mesh_stale")

    async def change(self, text: str) -> None:
        """As Kubernetes changes a ConfigMap: the link that the path is moves."""
        fresh = self.config.with_name(f"version-{len(list(self.config.parent.iterdir()))}.yaml")
        fresh.write_text(text)
        link = self.config.with_name("new-link")
        link.symlink_to(fresh)
        link.replace(self.config)
        await self.reloader.look()


@pytest_asyncio.fixture
async def reloading(fresh_redis: str, tmp_path: Path) -> AsyncIterator[Reloading]:
    async with engine_world(fresh_redis, tmp_path) as world:
        config = tmp_path / "mesh.yaml"
        settings = EngineSettings(
            config=config, redis=fresh_redis, store=f"file://{tmp_path}/store", token_keys=TOKEN_KEYS
        )

        async def bootstrap() -> None:
            await build(settings, world.server, np.random.default_rng(7))

        TOLD.clear()
        yield Reloading(world, config, Reloader(config, world.server, bootstrap, Told("crs-engine", "pod")))


async def test_a_new_placement_is_served_and_the_old_ones_go_on(reloading: Reloading) -> None:
    world = reloading.world
    await world.hands.mapping("comics/new", {"ann": [await world.hands.content("comics", "c1")]})
    await world.shows("ann", lambda selection: selection.content.content.content_id == "c1")
    with pytest.raises(grpc.aio.AioRpcError, match="no such placement"):
        await world.select("ann", "foot")

    await reloading.change(MESH.replace("engine:", f"{NEW_PLACEMENT[1:]}engine:"))

    assert len(world.server.kept[CATALOG]) == 1  # it is there before anybody asks
    assert (await world.select("ann", "foot")).content.content.content_id == "c1"
    assert (await world.select("ann")).content.content.content_id == "c1"
    assert (reloading.reloads("taken"), reloading.stale) == (1, 0)
    assert [(kind, reason) for kind, reason, _ in TOLD] == [("Normal", "MeshYamlTaken")]


async def test_changed_weights_decide_who_sees_which_variant(reloading: Reloading) -> None:
    world = reloading.world
    before = "learned: {weight: 1, policy: {linucb: {arm: logic}}, explore: {greedy: {}}}"
    both = f"{before}\n        other: {{weight: 0, policy: random}}"
    await world.hands.mapping("comics/new", {"ann": [await world.hands.content("comics", "c1")]})
    await reloading.change(MESH.replace(before, both))
    assert (await world.shows("ann", lambda shown: shown.HasField("content"))).content.variant == "learned"
    await reloading.change(
        MESH.replace(before, both.replace("weight: 1", "weight: 0").replace("0, policy: r", "1, policy: r"))
    )
    assert (await world.shows("ann", lambda shown: shown.HasField("content"))).content.variant == "other"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (MESH.replace("sources:", "sauces:"), ["placements.head.sauces", "did you mean 'sources'?"]),
        (MESH + "kafka: {partitions: 8}\n", ["kafka.partitions", "is 4 in effect, 8 in the file"]),
        ("{", ["is not YAML"]),
    ],
    ids=["a wrong key", "what cannot change", "no YAML"],
)
async def test_a_file_that_cannot_count_is_refused_and_the_old_one_stays(
    reloading: Reloading, broken: str, words: list[str]
) -> None:
    with capture_logs() as logs:
        await reloading.change(broken)
        await reloading.reloader.look()
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert all(word in line["error"] for word in words), line
    assert (reloading.reloads("refused"), reloading.stale) == (1, 1)
    ((kind, reason, message),) = TOLD
    assert (kind, reason) == ("Warning", "MeshYamlRefused")
    assert all(word in message for word in words)
    assert (await reloading.world.select("ann")).WhichOneof("outcome") == "no_content"

    await reloading.change(MESH)
    assert (reloading.reloads("taken"), reloading.stale) == (0, 0)


async def test_the_models_that_are_served_stay_known(reloading: Reloading) -> None:
    await reloading.change(MESH.replace("model_poll: 1s", "model_poll: 2s"))
    status = await reloading.world.stub.GetModelStatus(pb.GetModelStatusRequest(placement="head"))
    assert [model.policy for model in status.models] == ["linucb", "popularity"]


@pytest.mark.parametrize("away", [RedisClient, FileStore])
async def test_a_change_waits_for_what_is_away_so_that_nothing_that_was_known_is_forgotten(
    reloading: Reloading, away: type[RedisClient | FileStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ping(self: object) -> None:
        raise Unavailable("is away")

    await reloading.change(MESH.replace("model_poll: 1s", "model_poll: 2s"))
    with monkeypatch.context() as patched:
        patched.setattr(away, "ping", ping)
        await reloading.change(MESH.replace("model_poll: 1s", "model_poll: 3s"))
    assert (reloading.reloads("taken"), reloading.reloads("failed"), reloading.stale) == (1, 1, 1)

    await reloading.reloader.look()
    assert (reloading.reloads("taken"), reloading.stale) == (2, 0)
