"""A whole mesh for end-to-end tests: what it imports, who visits it, and what came out of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaConsumer
from google.protobuf.message import DecodeError

from banditmesh.client import ClientLimits, Event, MeshClient, Selected, shown
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2, crs_engine_pb2_grpc
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.local.stack import LocalMesh, Process
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests/e2e/mesh.yaml"
USERS = [f"u{number}" for number in range(2000)]
CONTENTS = {"weather": "rain", "comics": "volume-7", "films": "heat"}
"""What each service proposes to everybody."""
PATIENCE_S = 40.0
"""An app would rather show nothing; a test wants to see that what was down comes back."""
_TICKS_AFTERWARDS = 3


@contextmanager
def running_mesh(folder: Path) -> Iterator[LocalMesh]:
    """The mesh of ``mesh.yaml`` with an embedded S3 store and the films' Data Provider; nothing is imported yet."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(ROOT))
        argv = ["tests.support.film_provider", "{address}"]
        with Process("provider", folder / "provider", logs=folder / "logs", argv=argv, env={}) as provider:
            config = folder / "mesh.yaml"
            config.write_text(Template(CONFIG.read_text()).substitute(PROVIDER=provider.address))
            # The shortest that a broker allows: a killed joiner's partitions are free so much sooner.
            env = {"BANDITMESH_SESSION_TIMEOUT_S": "6"}
            with LocalMesh(folder, config, embedded_s3=True, env=env) as mesh:
                yield mesh


async def import_everything(mesh: LocalMesh, folder: Path) -> dict[str, importer_pb2.ImportJob]:
    """Write a mapping file a service, each in another format, notify the importer, and return the jobs at their end."""
    csv = folder / "weather.csv"
    csv.write_text("user_id,contents\n" + "".join(f"{user},{CONTENTS['weather']}\n" for user in USERS))
    jsonl = folder / "comics.jsonl"
    rows = ({"user_id": user, "contents": [CONTENTS["comics"]]} for user in USERS)
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet = folder / "films.parquet"
    pq.write_table(pa.table({"user_id": USERS, "contents": [[CONTENTS["films"]]] * len(USERS)}), parquet)
    files = {("weather", "today"): csv, ("comics", "new-volume"): jsonl, ("films", "similar"): parquet}

    async def one(service: str, logic: str, path: Path) -> importer_pb2.ImportJob:
        request = importer_pb2.NotifyMappingRequest(service=service, logic=logic, uri=path.as_uri(), version="1")
        job = (await stub.NotifyMapping(request, timeout=PATIENCE_S)).job
        watch = importer_pb2.WatchImportJobRequest(job_id=job.job_id)
        async for update in stub.WatchImportJob(watch, timeout=PATIENCE_S):
            job = update.job
        return job

    async with grpc.aio.insecure_channel(mesh.addresses["importer"]) as channel:
        stub = importer_pb2_grpc.ImporterServiceStub(channel)
        return {service: await one(service, logic, path) for (service, logic), path in files.items()}


@asynccontextmanager
async def client_of(mesh: LocalMesh) -> AsyncIterator[MeshClient]:
    """A patient client, which sends nothing twice: tests count what servers have seen."""
    limits = ClientLimits(deadline_s=PATIENCE_S, hedge_selects_after_s=None, hedge_events_after_s=None)
    async with MeshClient(mesh.addresses["crs_engine"], mesh.addresses["tracker"], limits=limits) as client:
        yield client


@dataclass
class Traffic:
    """Visits that are under way, and the impressions that were acknowledged so far.

    Attributes:
        acknowledged: Their ids.
        under_way_after: When there are so many of them, ``under_way`` is set.
    """

    acknowledged: list[bytes] = field(default_factory=list)
    under_way_after: int = 0
    under_way: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(
        self,
        client: MeshClient,
        placement: str,
        users: Sequence[str],
        react: Callable[[Selected], Event | None] = lambda selection: None,
        *,
        at_once: int = 8,
    ) -> None:
        """Everybody visits once; each impression, with its reaction, is tracked until it is acknowledged."""
        waiting = iter(users)

        async def visitor() -> None:
            for user in waiting:
                selection = await client.select(placement, user)
                assert isinstance(selection, Selected), selection
                reaction = react(selection)
                events = [shown(selection)] if reaction is None else [shown(selection), reaction]
                refused = [error for error in await client.track(events) if error is not None]
                assert not refused
                self.acknowledged.append(selection.impression_id)
                if len(self.acknowledged) == self.under_way_after:
                    self.under_way.set()

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(visitor())


async def copies(mesh: LocalMesh, impressions: Collection[bytes]) -> Counter[bytes]:
    """How many examples each of these impressions became, once all have come out and time has gone on since."""
    consumer = AIOKafkaConsumer(
        "examples",
        bootstrap_servers=mesh.settings["BANDITMESH_KAFKA"],
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        found: Counter[bytes] = Counter(dict.fromkeys(impressions, 0))
        ticks = Counter({partition.partition: 0 for partition in consumer.assignment()})
        async with asyncio.timeout(2 * PATIENCE_S):
            # What would come twice has come when every partition's time has gone on after the last example.
            while not (all(found.values()) and all(count >= _TICKS_AFTERWARDS for count in ticks.values())):
                for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                    for record in records:
                        example = _example(record.value)
                        if example.WhichOneof("body") == "tick":
                            ticks[partition.partition] += 1
                        elif example.joined.decision.impression_id in found:
                            found[example.joined.decision.impression_id] += 1
                            ticks = Counter(dict.fromkeys(ticks, 0))
        return found
    except TimeoutError:
        missing = sum(count == 0 for count in found.values())
        raise AssertionError(f"{missing} of {len(found)} impressions did not come out; ticks {dict(ticks)}") from None
    finally:
        await consumer.stop()


def _example(value: bytes) -> events_pb2.Example:
    try:
        return events_pb2.Example.FromString(value)
    except DecodeError:  # a test has put it there
        return events_pb2.Example()


async def model_version(mesh: LocalMesh, placement: str, policy: str) -> int:
    """The version that the engine has loaded."""
    async with grpc.aio.insecure_channel(mesh.addresses["crs_engine"]) as channel:
        stub = crs_engine_pb2_grpc.CrsEngineServiceStub(channel)
        request = crs_engine_pb2.GetModelStatusRequest(placement=placement)
        status = await stub.GetModelStatus(request, timeout=PATIENCE_S)
    return next(int(model.version) for model in status.models if model.policy == policy)


async def newer_model(mesh: LocalMesh, placement: str, policy: str, than: int) -> int:
    """Wait until the engine has a newer version; return it."""

    async def newer() -> int:
        version = await model_version(mesh, placement, policy)
        return version if version > than else 0

    return await eventually(newer, within_s=PATIENCE_S)
