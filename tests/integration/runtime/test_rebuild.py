"""A service that is built anew while it serves: what is under way ends, what comes next is answered by the new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import Counter

from banditmesh.runtime.access_table import AccessTable
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.serve import Server, ServerOptions
from tests.support.echo import DESCRIPTOR, Echo, EchoStub, add_echo_to_server
from tests.support.eventually import eventually_so

WORD = StringValue(value="x")


class Service:
    """Bootstraps that register a service with a version, which its answers begin with."""

    def __init__(self, *, alone: bool = False) -> None:
        self.server = Server(ServerOptions(grace_s=5))
        self.version = 1
        self.log: list[str] = []
        self.held = asyncio.Event()
        self.fails: Exception | None = None
        self.alone = alone
        self.up = True

    async def bootstrap(self) -> None:
        version = self.version
        if self.alone:
            self.server.run_alone()
        counter = Counter("banditmesh_calls", "Calls", registry=self.server.registry)
        self.server.on_stop("client", self._note(f"closed {version}"))
        if self.fails is not None:
            raise self.fails

        async def unary(request: StringValue, context: Any) -> StringValue:
            counter.inc()
            if request.value == "hold":
                await self.held.wait()
            return StringValue(value=f"{version}{request.value}")

        async def watch(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
            yield StringValue(value=str(version))
            await asyncio.Event().wait()

        async def work() -> None:
            self.log.append(f"works {version}")
            try:
                await asyncio.Event().wait()
            finally:
                self.log.append(f"stopped {version}")

        async def probe() -> None:
            if not self.up:
                raise ConnectionError("down")

        self.server.background("work", work)
        self.server.check("dependency", probe, interval_s=3600)
        self.server.add_service(DESCRIPTOR, add_echo_to_server, Echo(unary, watch), until_drain=("Stream",))

    def _note(self, what: str) -> Callable[[], Awaitable[None]]:
        async def note() -> None:
            self.log.append(what)

        return note

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}")

    def calls(self) -> float | None:
        return self.server.registry.get_sample_value("banditmesh_calls_total")


async def test_calls_go_to_the_new_one_and_those_under_way_are_finished_by_the_old_one() -> None:
    service = Service()
    await service.bootstrap()
    async with service.server, service.channel() as channel:
        stub = EchoStub(channel)
        assert (await stub.Unary(WORD)).value == "1x"
        held = stub.Unary(StringValue(value="hold"))
        assert (await stub.Unary(WORD)).value == "1x"

        service.version = 2
        rebuilding = asyncio.create_task(service.server.rebuild(service.bootstrap))
        async with asyncio.timeout(10):
            while (await stub.Unary(WORD)).value != "2x":
                pass
        assert "closed 1" not in service.log
        service.held.set()
        assert (await held).value == "1hold"
        await rebuilding
        assert service.log == ["works 1", "works 2", "stopped 1", "closed 1"]


async def test_what_must_run_alone_starts_when_its_former_self_has_ended() -> None:
    service = Service(alone=True)
    await service.bootstrap()
    async with service.server, service.channel() as channel:
        service.version = 2
        await service.server.rebuild(service.bootstrap)
        assert (await EchoStub(channel).Unary(WORD)).value == "2x"
    assert service.log == ["works 1", "stopped 1", "closed 1", "works 2", "stopped 2", "closed 2"]


async def test_a_build_that_fails_leaves_everything_as_it_was() -> None:
    service = Service()
    await service.bootstrap()
    async with service.server, service.channel() as channel:
        stub = EchoStub(channel)
        await stub.Unary(WORD)
        service.version, service.fails = 2, Unavailable("Kafka is away")
        with pytest.raises(Unavailable):
            await service.server.rebuild(service.bootstrap)
        assert service.log == ["works 1", "closed 2"]
        assert (await stub.Unary(WORD)).value == "1x"
        assert service.calls() == 2
        service.fails = None
        await service.server.rebuild(service.bootstrap)
        assert (await stub.Unary(WORD)).value == "2x"
        assert service.calls() == 1


async def test_no_call_fails_while_it_is_built_anew_again_and_again() -> None:
    service = Service()
    await service.bootstrap()
    async with service.server, service.channel() as channel:
        stub, answers, done = EchoStub(channel), 0, asyncio.Event()

        async def caller() -> None:
            nonlocal answers
            while not done.is_set():
                await stub.Unary(WORD)
                answers += 1

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        for version in range(2, 12):
            service.version = version
            await service.server.rebuild(service.bootstrap)
            before = answers
            await eventually_so(lambda before=before: answers > before)  # type: ignore[misc]
        done.set()
        await asyncio.gather(*callers)


async def test_watches_of_the_old_one_are_told_to_watch_again() -> None:
    service = Service()
    await service.bootstrap()
    async with service.server, service.channel() as channel:
        watch = aiter(EchoStub(channel).Stream(WORD))
        assert (await anext(watch)).value == "1"
        service.version = 2
        await service.server.rebuild(service.bootstrap)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await anext(watch)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await anext(aiter(EchoStub(channel).Stream(WORD)))).value == "2"


async def test_health_is_watched_on_and_follows_the_new_checks() -> None:
    service = Service()
    await service.bootstrap()
    async with service.server, service.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
        await service.server.rebuild(service.bootstrap)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_a_new_access_table_counts_once_the_new_one_serves() -> None:
    service = Service()
    await service.bootstrap()
    async with service.server, service.channel() as channel:
        table = AccessTable.model_validate({"callers": {"a": {"roles": ["app"], "dns": ["a.example"]}}})

        async def fails() -> None:
            service.server.guard(table)
            raise Unavailable("Redis is away")

        with pytest.raises(Unavailable):
            await service.server.rebuild(fails)
        assert (await EchoStub(channel).Unary(WORD)).value == "1x"

        async def closed() -> None:
            await service.bootstrap()
            service.server.guard(table)

        await service.server.rebuild(closed)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EchoStub(channel).Unary(WORD)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
