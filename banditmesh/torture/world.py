"""A whole mesh to torture: servers of a shape, and replicas of the five services that are kept running."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Final, Literal

import grpc

from banditmesh.client import ClientLimits, MeshClient
from banditmesh.coalescing import CoalescingLimits
from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.local import ports
from banditmesh.local.kafka import Kafka
from banditmesh.local.running import Startable
from banditmesh.local.s3 import S3
from banditmesh.local.valkey import Valkey
from banditmesh.runtime.channels import open_channel
from banditmesh.runtime.errors import MeshError
from banditmesh.torture.forked import ForkedProcess, Prepare, Zygote
from banditmesh.torture.kafka_cluster import KafkaCluster
from banditmesh.torture.network import FaultyLink, Network
from banditmesh.torture.redis_shapes import Pair, ReplicatedCluster
from banditmesh.torture.rules import Rules, rules_of
from banditmesh.torture.supervisor import Replica, Supervisor
from banditmesh.torture.traffic import mapping, users

PARTITIONS: Final = 4
BUCKET: Final = "torture"
MESH: Final = Path(__file__).with_name("mesh.yaml")
LOGICS: Final = (("weather", "today"), ("comics", "new-volume"), ("comics", "similar"))
SESSION_S: Final = 6
"""The shortest that a broker allows: so long after its death a joiner's partitions are given to others."""
READY_WITHIN_S: Final = 120.0
_IMPORT_WITHIN_S: Final = 60.0


class PatientKafka(Kafka):
    """Started again while ten services wait for it, on a machine that may be busy with other things."""

    start_timeout_s = 180.0


@dataclass(frozen=True)
class Shape:
    """What servers there are.

    Attributes:
        brokers: Of Kafka: 1, or 3 with two in-sync replicas.
        redis: One node, a primary with a replica behind a name, or a Cluster with replicas.
        links: Kafka, Redis and the store are reached through links that can be made to hang.
        small_disks: Folders that can be filled up without harm to anybody else, by name; empty: there are none.
        replicas: Of each service.
    """

    brokers: Literal[1, 3] = 1
    redis: Literal["one", "pair", "cluster"] = "one"
    links: bool = False
    small_disks: Mapping[str, Path] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(
        default_factory=lambda: {"importer": 2, "crs_engine": 2, "tracker": 2, "joiner": 2, "learner": 2}
    )


class World:
    """See the module; ``async with World(…) as world``. Everything ends with it."""

    def __init__(self, folder: Path, shape: Shape, *, n_users: int = 400, window: str = "3s") -> None:
        self.folder = folder
        self.shape = shape
        self.supervisor = Supervisor()
        self.users = users(n_users)
        self.links: dict[str, FaultyLink] = {}
        self.kafka: Kafka | KafkaCluster
        self.redis: Valkey | Pair | ReplicatedCluster
        self.s3: S3
        self.env: dict[str, str] = {}
        self.imports = 0
        self._network = Network()
        self._stack = AsyncExitStack()
        self._zygote = Zygote(folder / "logs" / "zygote.log")
        replication = 3 if shape.brokers == 3 else 1
        text = Template(MESH.read_text()).substitute(WINDOW=window, REPLICATION=replication)
        self.config = folder / "mesh.yaml"
        self.rules: dict[str, Rules] = rules_of(text)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(text)

    @property
    def windows_s(self) -> dict[str, float]:
        """Join windows of the placements."""
        return {name: rules.window_ms / 1000 for name, rules in self.rules.items()}

    @property
    def bootstrap(self) -> str:
        """Kafka as the services reach it."""
        return self.env["BANDITMESH_KAFKA"]

    async def __aenter__(self) -> World:
        """Start it all, and import what there is to show."""
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it all."""
        await self.supervisor.stop()
        await self._stack.aclose()

    async def _start(self) -> None:
        self._network.start()
        self._stack.push_async_callback(asyncio.to_thread, self._network.stop)
        self._keep(self._zygote)
        # By this thread, which lives as long as what is forked shall.
        self._zygote.start()
        await asyncio.gather(
            asyncio.to_thread(self._start_kafka),
            asyncio.to_thread(self._start_redis),
            asyncio.to_thread(self._start_s3),
        )
        self.env |= {
            "BANDITMESH_CONFIG": str(self.config),
            "BANDITMESH_TOKEN_KEYS": f"1:{secrets.token_hex(32)}",
            "BANDITMESH_SESSION_TIMEOUT_S": str(SESSION_S),
            "BANDITMESH_IMPORT_LOCAL_FILES": "true",
        }
        for service, count in self.shape.replicas.items():
            for number in range(count):
                self.add(service, number)
        await self.supervisor.until_ready(self.supervisor.replicas, READY_WITHIN_S)
        await self.import_all()

    def _keep(self, server: Startable) -> None:
        """End it with the world, at once where it can be: nobody needs its data."""
        self._stack.push_async_callback(asyncio.to_thread, getattr(server, "kill", server.stop))

    def _start_kafka(self) -> None:
        if self.shape.brokers == 3:
            cluster = KafkaCluster(self.folder / "kafka")
            self._keep(cluster)
            self.kafka = cluster.start()
            self.env["BANDITMESH_KAFKA"] = cluster.bootstrap
            return
        folder = self.shape.small_disks.get("kafka", self.folder) / "kafka"
        if not self.shape.links:
            broker = PatientKafka(folder)
        else:
            # The broker tells clients where it is: at the link.
            taken = ports.free(2)
            link = self.links["kafka"] = self._network.link(taken[0])
            advertised = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{link.port}"}
            broker = PatientKafka(folder, ports_wanted=taken, options=advertised)
        self._keep(broker)
        self.kafka = broker.start()
        self.env["BANDITMESH_KAFKA"] = f"127.0.0.1:{self.links['kafka'].port}" if self.shape.links else broker.bootstrap

    def _start_redis(self) -> None:
        folder = self.folder / "redis"
        if self.shape.redis == "one":
            node = Valkey(folder)
            self._keep(node)
            self.redis = node.start()
            if self.shape.links:
                self.links["redis"] = self._network.link(node.port)
            self.env["BANDITMESH_REDIS"] = (
                f"redis://127.0.0.1:{self.links['redis'].port}" if self.shape.links else node.url
            )
            return
        shaped = Pair(folder, self._network) if self.shape.redis == "pair" else ReplicatedCluster(folder)
        self._keep(shaped)
        self.redis = shaped.start()
        self.env["BANDITMESH_REDIS"] = shaped.url

    def _start_s3(self) -> None:
        self.s3 = S3(self.folder / "s3")
        self._keep(self.s3)
        self.s3.start()
        self.s3.create_bucket(BUCKET)
        os.environ.update(self.s3.env)  # we read snapshots too
        url = self.s3.url(BUCKET)
        if self.shape.links:
            link = self.links["s3"] = self._network.link(self.s3.ports[0])
            url = f"s3://{BUCKET}?endpoint=http://127.0.0.1:{link.port}"
        self.env |= {"BANDITMESH_STORE": url, **self.s3.env}

    def add(
        self,
        service: str,
        number: int,
        *,
        env: Mapping[str, str] | None = None,
        prepare: Prepare = (),
        name: str = "",
    ) -> Replica:
        """Run one more replica.

        Args:
            service: One of the five.
            number: Which replica; of the learner also its ordinal.
            env: Added to its environment.
            prepare: What is done in its process before it runs.
            name: Absent: service and number.
        """
        name = name or f"{service}-{number}"
        more = dict(env or {})
        if service == "learner":
            more |= {
                "BANDITMESH_REPLICAS": str(self.shape.replicas["learner"]),
                "BANDITMESH_ORDINAL": str(number),
            }
        if service == "crs_engine":
            disk = self.shape.small_disks.get("cache")
            more |= {"BANDITMESH_MODEL_CACHE": str((disk or self.folder) / f"cache-{number}")}
        process = ForkedProcess(
            self._zygote,
            name,
            f"services.{service}",
            self.folder / "services" / name,
            logs=self.folder / "logs",
            env={**self.env, **more},
            prepare=prepare,
        )
        return self.supervisor.keep(Replica(service, process))

    async def until_ready(self) -> None:
        """Wait until all that should run serves."""
        await self.supervisor.until_ready([each for each in self.supervisor.replicas if each.wanted], READY_WITHIN_S)

    def target(self, service: str) -> str:
        """All replicas of a service, for gRPC."""
        return "ipv4:" + ",".join(each.process.address for each in self.supervisor.of(service))

    def client(self) -> MeshClient:
        """A client that spreads its calls over the replicas."""
        limits = ClientLimits(selects=CoalescingLimits(max_batch=16), events=CoalescingLimits(max_batch=64))
        return MeshClient(self.target("crs_engine"), self.target("tracker"), limits=limits)

    async def import_all(self) -> None:
        """Import every logic's mapping; again after Redis has lost it. Raises MeshError when it does not succeed."""
        self.imports += 1
        for service, logic in LOGICS:
            path = self.folder / f"{service}-{logic}.csv"
            path.write_text("".join(mapping(service, logic, self.users)))
            await self._import(service, logic, path)

    async def _import(self, service: str, logic: str, path: Path) -> None:
        request = importer_pb2.NotifyMappingRequest(
            service=service, logic=logic, uri=path.as_uri(), version=str(self.imports)
        )
        deadline = asyncio.get_running_loop().time() + _IMPORT_WITHIN_S
        async with open_channel(self.target("importer")) as channel:
            stub = importer_pb2_grpc.ImporterServiceStub(channel)
            while True:
                try:
                    job = (await stub.NotifyMapping(request, timeout=10)).job
                    watch = importer_pb2.WatchImportJobRequest(job_id=job.job_id)
                    async for update in stub.WatchImportJob(watch, timeout=30):
                        job = update.job
                    if job.state == importer_pb2.IMPORT_STATE_SUCCEEDED:
                        return
                    problem = job.error.message
                except grpc.aio.AioRpcError as error:
                    problem = f"{error.code().name}: {error.details()}"
                if asyncio.get_running_loop().time() > deadline:
                    raise MeshError(f"{service}/{logic} was not imported: {problem}")
                await asyncio.sleep(0.5)

    def metrics_urls(self) -> dict[str, str]:
        """Where each replica's metrics are."""
        return {each.name: each.process.metrics_url for each in self.supervisor.replicas}

    def log_of(self, name: str) -> str:
        """What a replica has logged so far."""
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""
