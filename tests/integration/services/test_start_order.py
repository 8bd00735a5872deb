"""Services that are started before their servers are there, and servers that come late: as after a power cut."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from banditmesh.local import ports
from banditmesh.local.kafka import Kafka
from banditmesh.local.s3 import S3
from banditmesh.local.valkey import Valkey
from tests.support.eventually import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("importer", "crs_engine", "tracker", "joiner", "learner")
MESH = """
services: {films: {logics: [similar]}}
placements: {home: {sources: [films/similar]}}
kafka: {partitions: 2}
"""


class Late:
    """The five services, and three servers that are not there yet."""

    def __init__(self, folder: Path) -> None:
        self.kafka = Kafka(folder / "kafka", ports_wanted=ports.free(Kafka.n_ports))
        self.valkey = Valkey(folder / "valkey", ports_wanted=ports.free(Valkey.n_ports))
        self.s3 = S3(folder / "s3", ports_wanted=ports.free(S3.n_ports))
        config = folder / "mesh.yaml"
        config.write_text(MESH)
        self.addresses = dict(zip(SERVICES, (f"127.0.0.1:{port}" for port in ports.free(len(SERVICES))), strict=True))
        self.logs = {name: folder / f"{name}.log" for name in SERVICES}
        environment = {
            **os.environ,
            **self.s3.env,
            "BANDITMESH_CONFIG": str(config),
            "BANDITMESH_KAFKA": self.kafka.bootstrap,
            "BANDITMESH_REDIS": self.valkey.url,
            "BANDITMESH_STORE": self.s3.url("late"),
            "BANDITMESH_TOKEN_KEYS": "1:" + "0a" * 32,
            "BANDITMESH_METRICS_PORT": "0",
            "BANDITMESH_METRICS_HOST": "127.0.0.1",
            "BANDITMESH_LOG_FORMAT": "json",
        }
        self.processes = {name: self._start(name, environment) for name in SERVICES}

    def _start(self, name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.logs[name].open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"services.{name}", "--grpc-address", self.addresses[name]],
                env=environment,
                stdout=log,
                stderr=log,
            )

    async def health(self, name: str) -> int | None:
        """What a service says of itself; None while nothing answers."""
        async with grpc.aio.insecure_channel(self.addresses[name]) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.aio.AioRpcError:
                return None
        return int(answer.status)

    async def until(self, name: str, status: int) -> None:
        async def is_so() -> bool:
            assert self.processes[name].poll() is None, f"{name} has ended:\n{self.logs[name].read_text()}"
            return await self.health(name) == status

        await eventually(is_so, within_s=80.0)

    def stop(self) -> dict[str, int]:
        """Exit codes."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(40) for name, process in self.processes.items()}


@pytest.fixture
def late(tmp_path: Path) -> Iterator[Late]:
    with ExitStack() as cleaning:
        started = Late(tmp_path)
        for server in (started.kafka, started.valkey, started.s3):
            cleaning.callback(server.kill)
        for process in started.processes.values():
            cleaning.callback(lambda process=process: process.poll() is None and process.kill())
        yield started


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


async def test_services_that_start_before_their_servers_wait_for_them_not_ready_and_then_serve(late: Late) -> None:
    for name in ("importer", "tracker", "joiner", "learner"):
        await late.until(name, NOT_SERVING)
    await late.until("crs_engine", SERVING)  # it has its fallback

    await asyncio.gather(*(asyncio.to_thread(server.start) for server in (late.kafka, late.valkey, late.s3)))
    late.s3.create_bucket("late")
    for name in SERVICES:
        await late.until(name, SERVING)

    assert late.stop() == dict.fromkeys(SERVICES, 0)
    for name in SERVICES:
        said = late.logs[name].read_text()
        assert "Traceback" not in said, f"{name}:\n{said}"
        assert not [line for line in lines(late.logs[name]) if "exception" in line], name
        assert "was never retrieved" not in said, f"{name}:\n{said}"


async def test_a_kafka_that_is_away_at_the_start_is_one_line(late: Late) -> None:
    for name in ("tracker", "joiner"):
        await late.until(name, NOT_SERVING)
    late.stop()
    for name in ("tracker", "joiner"):
        waiting = [line for line in lines(late.logs[name]) if line["event"] == "dependency down"]
        assert [line["dependency"] for line in waiting if line["dependency"] != "redis"] == ["kafka"], waiting
