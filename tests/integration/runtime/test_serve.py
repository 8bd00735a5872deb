"""A server from its start to its stop, over real sockets."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.lifecycle import EndProcess
from banditmesh.runtime.serve import Server, ServerOptions
from tests.support.echo import DESCRIPTOR, NAME, Echo, EchoStub, add_echo_to_server
from tests.support.eventually import eventually_so

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def echo_server(servicer: Echo | None = None, *, clock: Any = None, **options: Any) -> Server:
    server = Server(ServerOptions(**options), registry=CollectorRegistry(), clock=clock)
    server.add_service(DESCRIPTOR, add_echo_to_server, servicer or Echo(), until_drain=("Stream",))
    return server


def channel_to(server: Server) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")


class Watch:
    """A health watch: ``next()`` gives the next status."""

    def __init__(self, channel: grpc.aio.Channel, service: str = "") -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        self._answers = aiter(stub.Watch(health_pb2.HealthCheckRequest(service=service)))

    async def next(self) -> int:
        return int((await anext(self._answers)).status)


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


class Dependency:
    """Something that is up or down as the test says."""

    def __init__(self, up: bool = True) -> None:
        self.up = up

    async def ping(self) -> None:
        if not self.up:
            raise ConnectionError("connection refused")


async def test_health_is_answered_for_the_process_and_for_each_service() -> None:
    async with echo_server() as server, channel_to(server) as channel:
        assert await health_of(channel, "") == SERVING
        assert await health_of(channel, NAME) == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health_of(channel, "nobody")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_service_whose_critical_dependency_is_down_at_the_start_is_not_serving() -> None:
    server = echo_server()
    server.check("redis", Dependency(up=False).ping)
    async with server, channel_to(server) as channel:
        assert await health_of(channel, "") == NOT_SERVING
        assert await health_of(channel, NAME) == NOT_SERVING
        assert server.registry.get_sample_value("banditmesh_dependency_up", {"dependency": "redis"}) == 0


async def test_health_follows_a_critical_dependency_down_and_up() -> None:
    clock, redis = ManualClock(), Dependency()
    server = echo_server(clock=clock)
    server.check("redis", redis.ping, interval_s=5)
    async with server, channel_to(server) as channel:
        watch = Watch(channel)
        assert await watch.next() == SERVING
        redis.up = False
        await clock.advance(5)
        assert await watch.next() == NOT_SERVING
        redis.up = True
        await clock.advance(5)
        assert await watch.next() == SERVING


async def test_a_dependency_that_is_not_critical_is_only_measured() -> None:
    server = echo_server()
    server.check("kafka", Dependency(up=False).ping, critical=False)
    async with server, channel_to(server) as channel:
        assert await health_of(channel, "") == SERVING
        assert server.registry.get_sample_value("banditmesh_dependency_up", {"dependency": "kafka"}) == 0


async def test_silence_is_the_dependency_s_whoever_asks_it() -> None:
    answers = True

    async def probe() -> None:
        if not answers:
            await asyncio.Event().wait()

    server = echo_server()
    at = "redis://h:6379"
    for name in ("redis", "redis settings"):
        server.check(
            name, probe, interval_s=0.01, timeout_s=0.01, meanwhile="joining waits", silence_of="redis", where=at
        )
    with capture_logs() as logs:
        async with server:
            answers = False
            await eventually_so(lambda: len(server.health.broken) == 2)
    (line,) = [line for line in logs if line["event"] == "dependency down"]
    assert (line["dependency"], line["meanwhile"]) == ("redis", "joining waits")
    assert line["reason"] == "redis at redis://h:6379 does not answer within 0.01 s"


async def test_a_start_that_takes_a_moment_is_no_outage() -> None:
    clock, group = ManualClock(), Dependency(up=False)
    server = echo_server(clock=clock)
    server.check("reactions stream", group.ping, interval_s=1)
    with capture_logs() as logs:
        async with server:
            await clock.advance(5)
            group.up = True
            await clock.advance(5)
            group.up = False
            await clock.advance(5)
    assert [line["event"] for line in logs if line["event"].startswith("dep")] == ["dependency down"]


async def test_a_dependency_that_stays_down_is_logged_once_and_once_when_it_is_back() -> None:
    clock, kafka = ManualClock(), Dependency(up=False)
    server = echo_server(clock=clock)
    server.check("kafka", kafka.ping, critical=False, interval_s=5)
    with capture_logs() as logs:
        async with server:
            await clock.advance(20)
            kafka.up = True
            await clock.advance(20)
    assert [line["event"] for line in logs if line["event"].startswith("dep")] == ["dependency down", "dependency up"]
    assert next(line for line in logs if line["event"] == "dependency down")["reason"] == "connection refused"


async def test_a_dependency_of_one_service_leaves_the_others_serving() -> None:
    server = echo_server()
    server.check("redis", Dependency(up=False).ping, services=frozenset({"banditmesh.other.v1.Other"}))
    async with server, channel_to(server) as channel:
        assert await health_of(channel, NAME) == SERVING
        assert await health_of(channel, "") == NOT_SERVING


async def test_a_check_that_hangs_is_a_dependency_that_is_down() -> None:
    server = echo_server()
    server.check("redis", asyncio.Event().wait, timeout_s=0.01)  # type: ignore[arg-type]
    async with server, channel_to(server) as channel:
        assert await health_of(channel, "") == NOT_SERVING


async def test_a_crashed_background_task_flips_health_until_it_runs_again() -> None:
    clock, crash = ManualClock(), asyncio.Event()

    async def consume() -> None:
        await crash.wait()
        crash.clear()
        raise RuntimeError("poison")

    server = echo_server(clock=clock)
    server.background("consume", consume)
    async with server, channel_to(server) as channel:
        watch = Watch(channel)
        assert await watch.next() == SERVING
        crash.set()
        assert await watch.next() == NOT_SERVING
        await clock.wait_for_sleepers()
        await clock.advance(0.5 + 5.0)
        assert await watch.next() == SERVING


async def test_a_task_that_must_not_crash_ends_the_process_with_exit_code_1() -> None:
    async def consume() -> None:
        raise RuntimeError("state is lost")

    server = echo_server()
    server.background("consume", consume, on_crash=EndProcess())
    await server.start()
    assert await server.run_until_stopped() == 1


async def test_reflection_lists_the_services() -> None:
    async with echo_server() as server, channel_to(server) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
    listed = {service.name for service in answers[0].list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= listed


@pytest.mark.parametrize("symbol", [f"{NAME}.Unary", "grpc.health.v1.HealthCheckRequest.service"])
async def test_reflection_finds_methods_and_fields_by_name(symbol: str) -> None:
    async with echo_server() as server, channel_to(server) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
    assert answers[0].file_descriptor_response.file_descriptor_proto


async def test_reflection_does_not_find_what_is_not_there() -> None:
    async with echo_server() as server, channel_to(server) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health.Nothing")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
    assert answers[0].error_response.error_message


async def test_metrics_are_served_until_the_stop() -> None:
    server = echo_server(metrics=HostPort("127.0.0.1", 0))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    async with server, channel_to(server) as channel:
        await EchoStub(channel).Unary(StringValue())
        url = f"http://127.0.0.1:{server.metrics_port}/metrics"
        text = await asyncio.to_thread(lambda: direct.open(url, timeout=5).read().decode())
    assert f'banditmesh_grpc_requests_total{{code="OK",method="/{NAME}/Unary"}} 1.0' in text
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(direct.open, url, timeout=5)


async def test_a_taken_port_is_a_configuration_error_that_names_it() -> None:
    async with echo_server() as first:
        second = echo_server(address=HostPort("127.0.0.1", first.port))
        with pytest.raises(ConfigurationError, match=str(first.port)):
            async with second:
                pass


async def test_two_processes_share_a_port_when_told_to() -> None:
    async with (
        echo_server(reuse_port=True) as first,
        echo_server(reuse_port=True, address=HostPort("127.0.0.1", first.port)) as second,
    ):
        assert second.port == first.port


async def test_a_stop_flips_health_and_waits_before_it_refuses_calls() -> None:
    clock = ManualClock()
    server = echo_server(clock=clock, drain_delay_s=5)
    await server.start()
    async with channel_to(server) as channel:
        watch = Watch(channel)
        assert await watch.next() == SERVING
        stopping = asyncio.create_task(server.stop())
        assert await watch.next() == NOT_SERVING
        assert (await EchoStub(channel).Unary(StringValue(value="still"))).value == "still"
        await clock.wait_for_sleepers()
        await clock.advance(5)
        await stopping
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EchoStub(channel).Unary(StringValue())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_calls_in_flight_finish_before_the_stop_hooks_run_in_reverse_order() -> None:
    order: list[str] = []
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: StringValue, context: Any) -> StringValue:
        started.set()
        await go_on.wait()
        order.append("call")
        return StringValue(value="done")

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("task")

    async def close_redis() -> None:
        order.append("redis")

    async def flush_producer() -> None:
        order.append("producer")

    server = echo_server(Echo(unary=slow), grace_s=60)
    server.on_stop("redis", close_redis)
    server.on_stop("producer", flush_producer)
    server.background("loop", loop)
    await server.start()
    async with channel_to(server) as channel:
        watch = Watch(channel)
        await watch.next()
        call = EchoStub(channel).Unary(StringValue())
        await started.wait()
        stopping = asyncio.create_task(server.stop())
        assert await watch.next() == NOT_SERVING
        go_on.set()
        assert (await call).value == "done"
        await stopping
    assert order == ["call", "task", "producer", "redis"]


async def test_a_call_longer_than_the_grace_is_cut() -> None:
    started = asyncio.Event()

    async def endless(request: StringValue, context: Any) -> StringValue:
        started.set()
        await asyncio.Event().wait()
        return StringValue()

    server = echo_server(Echo(unary=endless), grace_s=0.01)
    await server.start()
    async with channel_to(server) as channel:
        call = EchoStub(channel).Unary(StringValue())
        await started.wait()
        await server.stop()
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_watches_end_with_unavailable_instead_of_using_up_the_grace() -> None:
    async def watch_job(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield StringValue(value="progress")
        await asyncio.Event().wait()

    server = echo_server(Echo(stream=watch_job), grace_s=3600)
    await server.start()
    async with channel_to(server) as channel:
        health = Watch(channel)
        await health.next()
        job = aiter(EchoStub(channel).Stream(StringValue()))
        await anext(job)
        await server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await anext(job)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stop_hook_that_fails_or_hangs_does_not_hold_the_others_up() -> None:
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    async def fail() -> None:
        raise RuntimeError("cannot flush")

    async def hang() -> None:
        await asyncio.Event().wait()

    server = echo_server()
    server.on_stop("close", close)
    server.on_stop("fail", fail)
    server.on_stop("hang", hang, deadline_s=0.01)
    async with server:
        pass
    assert closed.is_set()


async def test_stopping_twice_is_stopping_once() -> None:
    closed: list[int] = []

    async def close() -> None:
        closed.append(1)

    server = echo_server()
    server.on_stop("close", close)
    await server.start()
    await asyncio.gather(server.stop(), server.stop())
    assert closed == [1]


@pytest.mark.parametrize("writes", [False, True], ids=["generates", "writes"])
async def test_a_watch_that_is_ended_in_the_middle_of_a_write_hears_of_its_end(writes: bool) -> None:
    def end() -> None:
        assert server._interceptor is not None
        server._interceptor.drain()

    async def generate(request: StringValue, context: Any) -> Any:
        asyncio.get_running_loop().call_soon(end)
        yield request
        await asyncio.Event().wait()

    async def write(request: StringValue, context: Any) -> None:
        asyncio.get_running_loop().call_soon(end)
        await context.write(request)
        await asyncio.Event().wait()

    server = echo_server(Echo(stream=write if writes else generate))
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        watch = EchoStub(channel).Stream(StringValue(value="x"), timeout=20)
        assert await watch.read() == StringValue(value="x")
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE
