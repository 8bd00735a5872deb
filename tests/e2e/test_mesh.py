"""The whole loop over real processes, and what happens when one of them is killed or away."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.request import urlopen

import grpc
import pytest
from aiokafka import AIOKafkaProducer

from banditmesh.client import Event, MeshClient, Nothing, Origin, Reason, Selected, click, mute, shown, target
from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.contracts.learner.v1 import learner_pb2, learner_pb2_grpc
from banditmesh.local.server import Server
from banditmesh.local.stack import SERVICES, LocalMesh, Process, serving
from tests.support.eventually import eventually
from tests.support.whole_mesh import (
    CONTENTS,
    PATIENCE_S,
    ROOT,
    USERS,
    Traffic,
    client_of,
    copies,
    import_everything,
    model_version,
    newer_model,
    running_mesh,
)

pytestmark = pytest.mark.timeout(180)
VISITS = 150
KILL_AFTER = 20


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """One mesh for all of these tests, its mappings imported."""
    folder = tmp_path_factory.mktemp("mesh")
    with running_mesh(folder) as mesh:
        jobs = asyncio.run(import_everything(mesh, folder))
        for service, job in jobs.items():
            assert job.state == importer_pb2.IMPORT_STATE_SUCCEEDED, f"{service}: {job.error}"
            assert job.progress.rows == len(USERS)
        yield mesh


@pytest.fixture
async def client(mesh: LocalMesh) -> AsyncIterator[MeshClient]:
    async with client_of(mesh) as client:
        yield client


async def healthy(mesh: LocalMesh) -> None:
    """Wait until every service says that it is."""
    for address in mesh.addresses.values():
        await eventually(lambda address=address: asyncio.to_thread(serving, address), within_s=PATIENCE_S)


async def start_again(server: Server) -> None:
    await asyncio.to_thread(server.start)


async def test_what_people_click_is_what_others_are_shown_once_the_model_is_published(
    mesh: LocalMesh, client: MeshClient
) -> None:
    def clicks_films(selection: Selected) -> Event | None:
        return click(selection) if selection.service == "films" else None

    before = Traffic()
    await before.run(client, "learning", USERS[:60], clicks_films)
    assert set((await copies(mesh, before.acknowledged)).values()) == {1}
    await newer_model(mesh, "learning", "linucb", than=0)

    async def all_films() -> bool:
        selections = [await client.select("learning", user) for user in USERS[100:120]]
        return {each.service for each in selections if isinstance(each, Selected)} == {"films"}

    await eventually(all_films, within_s=PATIENCE_S)


async def test_a_content_comes_with_what_its_data_provider_says(client: MeshClient) -> None:
    selections = [await client.select("traffic", user) for user in USERS[200:230]]
    film = next(each for each in selections if isinstance(each, Selected) and each.service == "films")
    assert (film.content_id, film.title) == (CONTENTS["films"], f"The film {CONTENTS['films']}")


async def test_a_mute_empties_the_slot(client: MeshClient) -> None:
    selection = await client.select("traffic", "u300")
    assert isinstance(selection, Selected)
    assert await client.track([shown(selection), mute(selection)]) == [None, None]

    async def muted() -> Nothing | None:
        answer = await client.select("traffic", "u300")
        return answer if isinstance(answer, Nothing) else None

    nothing = await eventually(muted)
    assert nothing.reason is Reason.MUTED
    assert nothing.until is not None


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_killed_under_traffic_loses_and_doubles_nothing(
    mesh: LocalMesh, client: MeshClient, service: str
) -> None:
    first = 400 + VISITS * SERVICES.index(service)
    users = USERS[first : first + VISITS]
    traffic = Traffic(under_way_after=len(users) // 2 + KILL_AFTER)
    # Some are joined when it happens, some wait for their window to end, some are yet to come.
    await traffic.run(client, "traffic", users[: len(users) // 2])
    await copies(mesh, traffic.acknowledged)
    visiting = asyncio.create_task(traffic.run(client, "traffic", users[len(users) // 2 :]))
    async with asyncio.timeout(PATIENCE_S):
        await traffic.under_way.wait()
    assert not visiting.done()
    mesh.services[service].kill()
    await start_again(mesh.services[service])
    await visiting
    assert len(traffic.acknowledged) == VISITS
    assert set((await copies(mesh, traffic.acknowledged)).values()) == {1}
    await healthy(mesh)


async def test_the_learner_has_learned_every_example_once(mesh: LocalMesh, client: MeshClient) -> None:
    traffic = Traffic()
    await traffic.run(client, "outages", USERS[1200:1230])
    await copies(mesh, traffic.acknowledged)
    mesh.services["learner"].kill()
    more = Traffic()
    await more.run(client, "outages", USERS[1230:1260])
    await start_again(mesh.services["learner"])
    await copies(mesh, more.acknowledged)

    async def learned() -> list[int]:
        async with grpc.aio.insecure_channel(mesh.addresses["learner"]) as channel:
            stub = learner_pb2_grpc.LearnerServiceStub(channel)
            status = await stub.GetLearnerStatus(learner_pb2.GetLearnerStatusRequest(), timeout=PATIENCE_S)
        examples = [shard.examples for shard in status.shards if shard.placement == "outages"]
        return examples if min(examples) >= 60 else []

    assert set(await eventually(learned)) == {60}


@pytest.mark.parametrize("away", ["kafka", "s3", "learner"])
async def test_the_engine_answers_while_kafka_or_the_store_or_the_learner_is_away(
    mesh: LocalMesh, client: MeshClient, away: str
) -> None:
    server = {**mesh.servers, **mesh.services}[away]
    server.kill()
    try:
        for user in USERS[1300:1330]:
            selection = await client.select("outages", user, deadline_s=2.0)
            assert isinstance(selection, Selected)
            assert selection.origin is Origin.POLICY
    finally:
        await start_again(server)
    traffic = Traffic()
    await traffic.run(client, "outages", USERS[1330:1340])
    assert set((await copies(mesh, traffic.acknowledged)).values()) == {1}
    await healthy(mesh)


async def test_without_redis_the_engine_shows_what_is_popular_and_says_so(mesh: LocalMesh, client: MeshClient) -> None:
    traffic = Traffic()
    await traffic.run(client, "outages", USERS[1400:1410], click)
    await copies(mesh, traffic.acknowledged)

    async def has_popularity() -> int:
        return await model_version(mesh, "outages", "popularity")

    await eventually(has_popularity)
    mesh.servers["valkey"].kill()
    try:
        answer = await client.select("outages", "u1450")
        assert isinstance(answer, Selected)
        assert answer.origin is Origin.FALLBACK_STORE_UNAVAILABLE
        assert answer.content_id == CONTENTS[answer.service]
    finally:
        await start_again(mesh.servers["valkey"])

    async def decides_again() -> bool:
        answer = await client.select("outages", "u1451")
        return isinstance(answer, Selected) and answer.origin is Origin.POLICY

    await eventually(decides_again)
    await healthy(mesh)


async def test_records_that_nobody_understands_stop_nothing_and_become_dead_letters(
    mesh: LocalMesh, client: MeshClient
) -> None:
    poisoned = ("impressions", "reactions", "examples")
    producer = AIOKafkaProducer(bootstrap_servers=mesh.settings["BANDITMESH_KAFKA"])
    await producer.start()
    try:
        for topic in poisoned:
            for partition in range(4):
                await producer.send_and_wait(topic, b"\xff\xffpoison", key=b"u1500", partition=partition)
    finally:
        await producer.stop()
    version = await model_version(mesh, "traffic", "linucb")
    traffic = Traffic()
    await traffic.run(client, "traffic", USERS[1500:1520], click)
    assert set((await copies(mesh, traffic.acknowledged)).values()) == {1}
    await newer_model(mesh, "traffic", "linucb", than=version)

    async def dead_letters() -> list[str]:
        letters = await asyncio.to_thread(_dead_letters, mesh)
        topics = sorted(letter["topic"] for letter in letters)
        return topics if len(topics) >= 4 * len(poisoned) else []

    assert await eventually(dead_letters) == sorted(4 * poisoned)


async def test_a_changed_mesh_file_is_in_effect_in_all_five_services_without_a_restart(
    mesh: LocalMesh, client: MeshClient
) -> None:
    """Last, since it changes the mesh: a new placement with a target of its own, out of a new logic."""
    before = {name: service.pid for name, service in mesh.services.items()}
    text = mesh.config.read_text()
    added = """
  added:
    sources: [weather/tomorrow]
    rewards: {click: 1.0, none: 0.5, mute: 0.0, targets: {signup: 1.0}}
    experiment: {variants: {learned: {weight: 1, policy: {linucb: {arm: service}}}}}
join:"""
    text = text.replace("weather: {logics: [today]}", "weather: {logics: [today, tomorrow]}")
    mesh.config.write_text(text.replace("\njoin:", added, 1))

    async def taken() -> bool:
        texts = await asyncio.gather(*(asyncio.to_thread(_metrics, each) for each in mesh.services.values()))
        return all('banditmesh_mesh_reloads_total{result="taken"} 1.0' in text for text in texts)

    await eventually(taken)
    await healthy(mesh)
    assert {name: service.pid for name, service in mesh.services.items()} == before

    # importer: a logic that was not there before
    mapping = mesh.folder / "tomorrow.csv"
    mapping.write_text("user_id,contents\n" + "".join(f"{user},rain\n" for user in USERS[1600:1700]))
    async with grpc.aio.insecure_channel(mesh.addresses["importer"]) as channel:
        stub = importer_pb2_grpc.ImporterServiceStub(channel)
        request = importer_pb2.NotifyMappingRequest(
            service="weather", logic="tomorrow", uri=mapping.as_uri(), version="1"
        )
        await stub.NotifyMapping(request, timeout=PATIENCE_S)

    async def selected() -> bool:  # engine
        answer = await client.select("added", USERS[1600])
        return isinstance(answer, Selected) and answer.logic == "tomorrow"

    await eventually(selected)
    # tracker, joiner, learner, and the engine again
    traffic = Traffic()
    await traffic.run(client, "added", USERS[1600:1640], lambda selection: target(selection, "signup"))
    assert set((await copies(mesh, traffic.acknowledged)).values()) == {1}
    await newer_model(mesh, "added", "linucb", than=0)
    # what was there before is learned on
    version = await model_version(mesh, "traffic", "linucb")
    await traffic.run(client, "traffic", USERS[1640:1660], click)
    await newer_model(mesh, "traffic", "linucb", than=version)


def _metrics(service: Process) -> str:
    with urlopen(service.metrics_url, timeout=10) as answer:
        return str(answer.read().decode())


def _dead_letters(mesh: LocalMesh) -> list[dict[str, str]]:
    kafka = mesh.settings["BANDITMESH_KAFKA"]
    run = subprocess.run(
        [sys.executable, "-m", "banditmesh.cli", "dead-letters", "--kafka", kafka, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return [json.loads(line) for line in run.stdout.splitlines()]
