"""What a server does when too much is asked of it: too many calls, too many pings, too large headers, for too long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from banditmesh.runtime.admission import Door, Refusal
from banditmesh.runtime.errors import ResourceExhausted, from_rpc_error
from banditmesh.runtime.interceptors import CallInterceptor
from banditmesh.runtime.metrics import GrpcMetrics, RenewableRegistry
from banditmesh.runtime.serve import Server, ServerOptions
from tests.support.echo import DESCRIPTOR, NAME, Echo, EchoStub, add_echo_to_server
from tests.support.eventually import eventually_so

UNARY = f"/{NAME}/Unary"


def server_of(servicer: Echo, **options: Any) -> Server:
    server = Server(ServerOptions(grace_s=0, **options), registry=CollectorRegistry())
    server.add_service(DESCRIPTOR, add_echo_to_server, servicer)
    return server


def channel_to(server: Server, *options: tuple[str, int]) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options)


class Slow:
    """A method that answers when it is let."""

    def __init__(self) -> None:
        self.working = 0
        self.go_on = asyncio.Event()

    async def answer(self, request: StringValue, context: Any) -> StringValue:
        self.working += 1
        await self.go_on.wait()
        return request


async def test_one_call_too_many_is_refused_at_once_and_told_when_to_come_again() -> None:
    slow = Slow()
    async with server_of(Echo(unary=slow.answer), max_concurrent_rpcs=2) as server, channel_to(server) as channel:
        stub = EchoStub(channel)
        calls = [stub.Unary(StringValue(value="x")) for _ in range(2)]
        await eventually_so(lambda: slow.working == 2)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Unary(StringValue(value="x"), timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in rpc_status.from_call(refused.value).details)
        assert retry.retry_delay.ToTimedelta().total_seconds() > 0
        labels = {"method": UNARY, "reason": "concurrency"}
        assert server.registry.get_sample_value("banditmesh_grpc_refused_total", labels) == 1
        counted = {"method": UNARY, "code": "RESOURCE_EXHAUSTED"}
        assert server.registry.get_sample_value("banditmesh_grpc_requests_total", counted) == 1

        # Kubernetes must not take a busy server for a dead one.
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        # Streams are counted apart.
        assert [answer.value async for answer in stub.Stream(StringValue(value="ab"))] == ["a", "b"]

        slow.go_on.set()
        assert [(await call).value for call in calls] == ["x", "x"]
        assert (await stub.Unary(StringValue(value="y"))).value == "y"


async def test_nothing_is_done_for_a_call_whose_deadline_has_passed() -> None:
    slow, registry = Slow(), CollectorRegistry()
    slow.go_on.set()

    class Context:
        status: Any = None

        def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
            return ()

        def set_trailing_metadata(self, trailing: Any) -> None: ...

        def trailing_metadata(self) -> Any:
            return ()

        def time_remaining(self) -> float:
            return 0.0

        async def abort(self, code: grpc.StatusCode, *_: Any) -> None:
            self.status = code

    async def continuation(_: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(slow.answer, StringValue.FromString, StringValue.SerializeToString)

    class Details:
        method = UNARY

    handler: Any = await CallInterceptor(GrpcMetrics(registry)).intercept_service(continuation, Details())
    context = Context()
    await handler.unary_unary(b"no protobuf: it is not even read", context)
    assert context.status is grpc.StatusCode.DEADLINE_EXCEEDED
    assert slow.working == 0
    assert registry.get_sample_value("banditmesh_grpc_refused_total", {"method": UNARY, "reason": "deadline"}) == 1


async def test_a_door_refuses_calls_before_their_requests_are_received() -> None:
    refusal = Refusal.of(ResourceExhausted("full", retry_after_s=0.3))
    asked: list[float | None] = []

    def door(within_s: float | None) -> Refusal | None:
        asked.append(within_s)
        return None if open_ else refusal

    open_ = False
    server = Server(ServerOptions(grace_s=0), registry=CollectorRegistry())
    server.add_service(DESCRIPTOR, add_echo_to_server, Echo(), doors={"Unary": door})
    async with server, channel_to(server) as channel:
        stub = EchoStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Unary(StringValue(value="x"), timeout=10, metadata=(("x-request-id", "mine"),))
        found = from_rpc_error(refused.value)
        assert (found.code, found.message, found.retry_after_s) == (refusal.code, "full", 0.3)
        assert dict(refused.value.trailing_metadata())["x-request-id"] == "mine"
        for name, reason in (("refused", {"reason": "queue"}), ("requests", {"code": "RESOURCE_EXHAUSTED"})):
            assert server.registry.get_sample_value(f"banditmesh_grpc_{name}_total", {"method": UNARY, **reason}) == 1
        open_ = True
        assert (await stub.Unary(StringValue(value="y"))).value == "y"
        # gRPC rounds a deadline up on its way.
        assert [each is not None and 0 < each <= 10.5 for each in asked] == [True, False]


async def test_a_door_that_is_replaced_is_not_asked_any_more() -> None:
    refusal = Refusal.of(ResourceExhausted("full"))

    async def serve(door: Door | None) -> None:
        doors = {} if door is None else {"Unary": door}
        server.add_service(DESCRIPTOR, add_echo_to_server, Echo(), doors=doors)

    server = Server(ServerOptions(grace_s=0), registry=RenewableRegistry())
    await serve(None)
    async with server, channel_to(server) as channel:
        stub = EchoStub(channel)
        await server.rebuild(lambda: serve(lambda _within_s: refusal))
        with pytest.raises(grpc.aio.AioRpcError, match="full"):
            await stub.Unary(StringValue(value="x"))
        await server.rebuild(lambda: serve(None))
        assert (await stub.Unary(StringValue(value="y"))).value == "y"


async def test_calls_that_the_transport_cut_off_are_counted() -> None:
    async with server_of(Echo(), max_waiting_rpcs=1) as server, channel_to(server) as channel:
        stub = EchoStub(channel)
        await stub.Unary(StringValue(value="x"))
        calls = [stub.Unary(StringValue(value="x")) for _ in range(300)]
        cut_off = sum([await call.code() is grpc.StatusCode.CANCELLED for call in calls])
        assert cut_off > 0
        await eventually_so(lambda: server.registry.get_sample_value("banditmesh_grpc_unserved_total") == cut_off)


@pytest.mark.parametrize("door", [False, True], ids=["in the shared line", "in a line of its own"])
async def test_a_method_with_too_many_callers_cuts_off_who_stands_in_its_line_and_never_a_probe(door: bool) -> None:
    server = Server(ServerOptions(grace_s=0, max_waiting_rpcs=1), registry=CollectorRegistry())
    doors: dict[str, Door] = {"Unary": lambda _within_s: None} if door else {}
    server.add_service(DESCRIPTOR, add_echo_to_server, Echo(), doors=doors)
    async with server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:  # its threads go on while the loop stands
            stub, unserved = EchoStub(channel), server._unserved
            assert unserved is not None
            await asyncio.to_thread(stub.Unary, StringValue(value="connected"))

            def call(method: Any, request: Any) -> Any:
                before = unserved.not_taken()
                begun = method.future(request, timeout=20)
                while unserved.not_taken() == before:
                    time.sleep(0.001)
                return begun

            floods = [call(stub.Unary, StringValue(value="x")) for _ in range(20)]
            other = call(stub.Collect, iter([StringValue(value="y")]))
            probe = call(health_pb2_grpc.HealthStub(channel).Check, health_pb2.HealthCheckRequest())
            codes = Counter([await asyncio.to_thread(each.code) for each in floods])
            assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
            wanted = grpc.StatusCode.OK if door else grpc.StatusCode.CANCELLED
            assert await asyncio.to_thread(other.code) is wanted
            assert await asyncio.to_thread(probe.code) is grpc.StatusCode.OK
            cut_off = codes[grpc.StatusCode.CANCELLED] + (not door)
            await eventually_so(lambda: server.registry.get_sample_value("banditmesh_grpc_unserved_total") == cut_off)


async def test_a_scrape_while_calls_are_on_their_way_takes_none_for_cut_off() -> None:
    async with server_of(Echo()) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:  # its threads go on while the loop stands
            stub, unserved = EchoStub(channel), server._unserved
            assert unserved is not None
            await asyncio.to_thread(stub.Unary, StringValue(value="connected"))
            calls = [stub.Unary.future(StringValue(value="x"), timeout=20) for _ in range(5)]
            while unserved.not_taken() < len(calls):
                time.sleep(0.001)  # noqa: ASYNC251 so that none of them is taken up before the scrape
            assert server.registry.get_sample_value("banditmesh_grpc_unserved_total") == 0
            assert unserved.certain() == 0, "by which callers are refused"
            assert [await asyncio.to_thread(call.result) for call in calls] == [StringValue(value="x")] * 5


async def test_callers_that_come_again_and_again_are_told_to_wait_once_the_transport_cuts_them_off() -> None:
    async with server_of(Echo(), max_waiting_rpcs=1) as server, channel_to(server) as channel:
        stub, ended = EchoStub(channel), Counter[grpc.StatusCode]()

        async def caller() -> None:
            while not ended[grpc.StatusCode.RESOURCE_EXHAUSTED]:
                ended[await stub.Unary(StringValue(value="x"), timeout=20).code()] += 1

        async with asyncio.timeout(20):
            await asyncio.gather(*(caller() for _ in range(200)))
        assert ended[grpc.StatusCode.CANCELLED]
        labels = {"method": UNARY, "reason": "overflow"}
        assert (
            server.registry.get_sample_value("banditmesh_grpc_refused_total", labels)
            == ended[grpc.StatusCode.RESOURCE_EXHAUSTED]
        )


async def test_a_server_that_stops_cuts_off_nobody_who_stands_in_line() -> None:
    server = Server(ServerOptions(grace_s=10), registry=CollectorRegistry())
    server.add_service(DESCRIPTOR, add_echo_to_server, Echo())
    async with server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:  # its threads go on while the loop stands
            stub, unserved = EchoStub(channel), server._unserved
            await asyncio.to_thread(stub.Unary, StringValue(value="connected"))
            calls = [stub.Unary.future(StringValue(value="x"), timeout=20) for _ in range(5)]
            while unserved is not None and unserved.not_taken() < len(calls):
                time.sleep(0.001)  # noqa: ASYNC251 so that none of them is taken up before the stop begins
            await server.stop()
            assert [call.result(timeout=20).value for call in calls] == ["x"] * 5


async def test_a_connection_that_is_old_is_replaced_and_no_call_notices() -> None:
    peers: set[str] = set()

    async def answer(request: StringValue, context: Any) -> StringValue:
        peers.add(context.peer())
        return request

    async with (
        server_of(Echo(unary=answer), max_connection_age_s=0.2, connection_grace_s=10) as server,
        channel_to(server) as channel,
    ):
        stub = EchoStub(channel)
        async with asyncio.timeout(20):
            while len(peers) < 3:
                await stub.Unary(StringValue(value="x"))


async def test_a_client_that_pings_too_often_is_sent_away() -> None:
    async def hang(request: StringValue, context: Any) -> Any:
        yield StringValue(value="begun")
        await asyncio.Event().wait()

    pinging = (
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    async with server_of(Echo(stream=hang)) as server, channel_to(server, *pinging) as channel:
        stream = aiter(EchoStub(channel).Stream(StringValue()))
        await anext(stream)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with asyncio.timeout(20):
                await anext(stream)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ended.value.details() == "Too many pings"


async def test_headers_have_a_limit() -> None:
    async with server_of(Echo(), max_metadata_bytes=2048) as server, channel_to(server) as channel:
        stub = EchoStub(channel)
        assert (await stub.Unary(StringValue(value="x"), metadata=(("small", "x" * 500),))).value == "x"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Unary(StringValue(value="x"), metadata=(("large", "x" * 5000),))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_who_connects_and_says_no_more_is_let_go(said: bytes) -> None:
    async with server_of(Echo(), handshake_timeout_s=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(said)
        while await reader.read(1000):  # the server's settings; then its end
            pass
        writer.close()
