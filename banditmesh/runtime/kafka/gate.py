"""Waiting for Kafka at the start of a service: it serves, not ready, until the topics are there and right. And looking
after them from then on: a Kafka that has lost its data comes back without any."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError, Unavailable
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.outages import outages
from banditmesh.runtime.serve import Server

log = get_logger(__name__)

FIRST_LOOK_S = 5.0
LOOK_AGAIN_S = 10.0
"""How often topics that were there are looked for again."""
_LEAST_RETRY_S, _MOST_RETRY_S = 0.5, 10.0


class TopicsGate:
    """Lets work begin once ``ensure`` has succeeded.

    ``ensure`` is told whether it succeeded before. It raises ConfigurationError when a topic is not what the mesh
    needs: at :meth:`first_look` that ends the start, later it is waited for, as an operator may mend the topic. It
    raises Unavailable when Kafka is away or does not let us in.
    """

    def __init__(self, ensure: Callable[[bool], Awaitable[object]], clock: Clock, where: str) -> None:
        """``where``: the address of the brokers, for the log."""
        self._ensure = ensure
        self._where = where
        self._clock = clock
        self._open = asyncio.Event()
        self._reason: MeshError | None = Unavailable("Kafka has not been asked yet", dependency="kafka")
        self._work = outages.work("topics")

    async def first_look(self) -> None:
        """Try once, before the service is up. Raises ConfigurationError; that Kafka is away is one line in the log."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._try()
        except TimeoutError:
            self._wait_for(
                Unavailable(f"Kafka at {self._where} has not answered within {FIRST_LOOK_S:g} s", dependency="kafka")
            )
        except Unavailable as error:
            self._wait_for(error)

    async def run(self) -> None:
        """Try until it is right, then look again and again: a background task."""
        retry_s = _LEAST_RETRY_S
        while not self._open.is_set():
            try:
                await self._try()
            except MeshError as error:
                self._wait_for(error)
                await self._clock.sleep(retry_s)
                retry_s = min(2 * retry_s, _MOST_RETRY_S)
        while True:
            await self._clock.sleep(LOOK_AGAIN_S)
            try:
                await self._ensure(True)
                self._is_right()
            except Unavailable:
                pass  # whoever works with Kafka says so
            except MeshError as error:
                self._wait_for(error)

    async def probe(self) -> None:
        """For a health check: raise Unavailable with the reason until work may begin, and while a topic is not what it
        must be. Work that has begun goes on."""
        if self._reason is not None:
            raise Unavailable(str(self._reason), dependency=self._reason.dependency or "topics")

    def then(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """A background task that waits here before it does its work."""

        async def wait_and_work() -> None:
            await self._open.wait()
            await work()

        return wait_and_work

    async def _try(self) -> None:
        await self._ensure(False)
        self._open.set()
        self._is_right()

    def _is_right(self) -> None:
        if self._reason is not None:
            log.info("topics are there, and what they must be")
            self._reason = None
            self._work.well()

    def _wait_for(self, reason: MeshError) -> None:
        self._work.failed(reason)
        self._reason = reason


async def topics_of(
    server: Server, kafka: KafkaAddress, mesh: Mesh, rests_on: Callable[[Topics], Collection[str]] = tuple
) -> tuple[Topics, TopicsGate]:
    """The mesh's topics, and the gate before them: the server is not ready until it is open.

    ``rests_on``: those that the server is not ready without when somebody changes their settings while it runs; by
    default all.

    Raises:
        ConfigurationError: A topic is not what the mesh needs.
    """
    topics = Topics.named(mesh.kafka.topic_prefix)

    async def ensure(again: bool) -> None:
        await ensure_topics(
            kafka,
            topics,
            partitions=mesh.kafka.partitions,
            replication=mesh.kafka.replication,
            min_retention_s=mesh.join.window + mesh.join.slack,
            again=again,
            rests_on=rests_on(topics),
        )

    gate = TopicsGate(ensure, server.clock, str(kafka))
    await gate.first_look()
    server.background("topics", gate.run)
    server.check("topics", gate.probe, interval_s=1.0)
    return topics, gate
