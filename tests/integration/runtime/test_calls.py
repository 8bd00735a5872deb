"""What a client gets from our server, over a real socket, whatever the method does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from banditmesh.runtime import errors
from banditmesh.runtime.logging import request_id
from banditmesh.runtime.serve import Server, ServerOptions
from tests.support.echo import DESCRIPTOR, NAME, Echo, EchoStub, add_echo_to_server
from tests.support.eventually import eventually_so

GARBAGE = b"\xff\xff\xff\xff"


class Wire:
    """A running server and a channel to it."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.stub = EchoStub(channel)
        self.raw = EchoStub(channel, raw=True)

    async def counted(self, method: str, code: str) -> None:
        """Return once one such call is counted: a client may have its answer before that. While the server runs: a
        stop without a grace cancels what a method still does."""
        labels = {"method": method, "code": code}
        await self.shown("banditmesh_grpc_requests_total", labels, 1)

    async def shown(self, name: str, labels: dict[str, str], value: float) -> None:
        """Return once a metric has that value."""
        await eventually_so(lambda: self.server.registry.get_sample_value(name, labels) == value)


@asynccontextmanager
async def wire(servicer: Echo, **options: Any) -> AsyncIterator[Wire]:
    server = Server(ServerOptions(grace_s=0, **options), registry=CollectorRegistry())
    server.add_service(DESCRIPTOR, add_echo_to_server, servicer)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Wire(server, channel)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def all_of(call: Any) -> list[str]:
    return [response.value async for response in call]


def details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    trailing = dict(error.trailing_metadata() or ())
    return status_pb2.Status.FromString(trailing["grpc-status-details-bin"])


def raising(error: BaseException) -> Echo:
    """Every method raises ``error``."""

    async def answer(request: Any, context: Any) -> StringValue:
        raise error

    async def generate(request: Any, context: Any) -> AsyncIterator[StringValue]:
        for each in (error,):
            raise each
        yield StringValue()

    return Echo(answer, generate, answer, generate)


async def every_shape(stub: EchoStub) -> dict[str, grpc.aio.AioRpcError]:
    """Nothing is sent into a stream: what is on its way when the answer comes is INTERNAL to the client (grpc.aio)."""
    word = StringValue(value="word")
    return {
        "Unary": await failure(stub.Unary(word)),
        "Stream": await failure(all_of(stub.Stream(word))),
        "Collect": await failure(stub.Collect()),
        "Chat": await failure(stub.Chat().read()),
    }


async def test_every_shape_of_method_answers() -> None:
    async with wire(Echo()) as on:
        words = [StringValue(value="a"), StringValue(value="b")]
        assert (await on.stub.Unary(words[0])).value == "a"
        assert await all_of(on.stub.Stream(StringValue(value="abc"))) == ["a", "b", "c"]
        assert (await on.stub.Collect(iter(words))).value == "ab"
        assert await all_of(on.stub.Chat(iter(words))) == ["a", "b"]


@pytest.mark.parametrize(
    "kind",
    [
        errors.InvalidArgument,
        errors.NotFound,
        errors.AlreadyExists,
        errors.FailedPrecondition,
        errors.Unavailable,
        errors.ResourceExhausted,
        errors.PermissionDenied,
        errors.Unauthenticated,
        errors.DeadlineExceeded,
        errors.Aborted,
        errors.Unimplemented,
        errors.DataLoss,
        errors.Internal,
    ],
)
async def test_a_typed_error_is_its_status_with_details_in_every_shape(kind: type[errors.MeshError]) -> None:
    error = kind("no such thing", field="placement", value="hoem", hint="there is home", retry_after_s=1.5)
    async with wire(raising(error)) as on:
        for method, failed in (await every_shape(on.stub)).items():
            assert failed.code() is kind.code, method
            assert "no such thing" in (failed.details() or "")
            info, bad, retry = (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.BadRequest(),
                error_details_pb2.RetryInfo(),
            )
            for detail, packed in zip((info, bad, retry), details(failed).details, strict=True):
                assert packed.Unpack(detail)
            assert info.reason == error.reason
            assert bad.field_violations[0].field == "placement"
            assert "'hoem'" in bad.field_violations[0].description
            assert retry.retry_delay.ToMilliseconds() == 1500
            await on.counted(f"/{NAME}/{method}", kind.code.name)


async def test_a_typed_error_comes_back_typed_on_the_client() -> None:
    error = errors.ResourceExhausted("too many events", field="events", hint="send 100", retry_after_s=2)
    async with wire(raising(error)) as on:
        again = errors.from_rpc_error(await failure(on.stub.Unary(StringValue())))
    assert type(again) is errors.ResourceExhausted
    assert (again.field, again.hint, again.retry_after_s) == ("events", "send 100", 2)
    assert str(again) == str(error)


async def test_a_bug_is_internal_and_tells_the_client_nothing_but_the_request_id() -> None:
    async with wire(raising(ValueError("password=hunter2"))) as on:
        with capture_logs() as logs:
            failures = await every_shape(on.stub)
        for failed in failures.values():
            assert failed.code() is grpc.StatusCode.INTERNAL
            assert "hunter2" not in str(failed.details()) + str(details(failed)) + str(failed.debug_error_string())
            assert dict(failed.trailing_metadata() or ())["x-request-id"] in (failed.details() or "")
    crashes = [line for line in logs if line["event"] == "call crashed"]
    assert len(crashes) == 4
    assert all("hunter2" in str(line["exc_info"]) for line in crashes)


async def test_a_garbage_body_is_an_invalid_argument_that_names_the_message() -> None:
    async with wire(Echo()) as on:
        failures = [
            await failure(on.raw.Unary(GARBAGE)),
            await failure(all_of(on.raw.Stream(GARBAGE))),
            await failure(on.raw.Collect(iter([GARBAGE]))),
            await failure(all_of(on.raw.Chat(iter([GARBAGE])))),
        ]
    for failed in failures:
        assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "google.protobuf.StringValue" in (failed.details() or "")


async def test_a_method_that_answers_with_the_wrong_type_is_internal() -> None:
    async def wrong(request: StringValue, context: Any) -> Any:
        return None

    async with wire(Echo(unary=wrong)) as on:
        assert (await failure(on.stub.Unary(StringValue()))).code() is grpc.StatusCode.INTERNAL


async def test_a_method_that_was_not_overridden_is_unimplemented() -> None:
    def generated(request: StringValue, context: Any) -> None:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        raise NotImplementedError("Method not implemented!")

    async with wire(Echo(generated, generated, generated, generated)) as on:
        for failed in (await every_shape(on.stub)).values():
            assert failed.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_that_would_block_the_loop_is_refused() -> None:
    def blocking(request: StringValue, context: Any) -> StringValue:
        return StringValue()

    async with wire(Echo(unary=blocking)) as on:
        assert (await failure(on.stub.Unary(StringValue()))).code() is grpc.StatusCode.INTERNAL


async def test_an_unknown_method_is_unimplemented_and_its_name_is_no_label() -> None:
    async with wire(Echo()) as on:
        call = on.channel.unary_unary(f"/{NAME}/{'x' * 100}")
        assert (await failure(call(b""))).code() is grpc.StatusCode.UNIMPLEMENTED
        await on.counted("unknown", "UNIMPLEMENTED")


async def test_a_too_large_request_is_resource_exhausted() -> None:
    async with wire(Echo(), max_message_bytes=10_000) as on:
        failed = await failure(on.stub.Unary(StringValue(value="x" * 20_000)))
        assert failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await on.stub.Unary(StringValue(value="x" * 5_000))).value == "x" * 5_000


async def forever(request: StringValue, context: Any) -> StringValue:
    await asyncio.Event().wait()
    return StringValue()


async def test_a_call_without_a_deadline_gets_the_servers() -> None:
    async with wire(Echo(unary=forever), default_deadline_s=0.05) as on:
        failed = await failure(on.stub.Unary(StringValue()))
        assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "0.05 s" in (failed.details() or "")


async def test_a_method_can_have_a_default_deadline_of_its_own() -> None:
    async def endless(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield StringValue(value="first")
        await asyncio.Event().wait()

    async with wire(Echo(stream=endless), deadlines_s={f"/{NAME}/Stream": 0.05}) as on:
        call = on.stub.Stream(StringValue())
        assert (await anext(aiter(call))).value == "first"
        assert (await failure(all_of(call))).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_clients_deadline_counts_over_the_servers() -> None:
    ended = asyncio.Event()

    async def wait(request: StringValue, context: Any) -> StringValue:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return StringValue()

    async with wire(Echo(unary=wait), default_deadline_s=3600) as on:
        failed = await failure(on.stub.Unary(StringValue(), timeout=0.05))
        assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await ended.wait()
        await on.counted(f"/{NAME}/Unary", "DEADLINE_EXCEEDED")


async def test_a_cancelled_call_ends_the_method_and_is_counted() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait(request: StringValue, context: Any) -> StringValue:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return StringValue()

    async with wire(Echo(unary=wait)) as on:
        call = on.stub.Unary(StringValue())
        await started.wait()
        call.cancel()
        await ended.wait()
        await on.counted(f"/{NAME}/Unary", "CANCELLED")


async def test_a_call_that_awaited_something_cancelled_is_answered() -> None:
    async with wire(raising(asyncio.CancelledError())) as on:
        for failed in (await every_shape(on.stub)).values():
            assert failed.code() is grpc.StatusCode.INTERNAL


async def test_a_timeout_inside_a_method_is_deadline_exceeded() -> None:
    async with wire(raising(TimeoutError())) as on:
        for failed in (await every_shape(on.stub)).values():
            assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_status_that_a_method_gave_by_itself_stays() -> None:
    async def abort(request: StringValue, context: Any) -> StringValue:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "own words")
        return StringValue()

    async with wire(Echo(unary=abort)) as on:
        failed = await failure(on.stub.Unary(StringValue()))
        assert (failed.code(), failed.details()) == (grpc.StatusCode.OUT_OF_RANGE, "own words")
        assert "x-request-id" in dict(failed.trailing_metadata() or ())
        await on.counted(f"/{NAME}/Unary", "OUT_OF_RANGE")


async def test_the_clients_request_id_is_in_the_context_and_comes_back() -> None:
    async def tell(request: StringValue, context: Any) -> StringValue:
        return StringValue(value=request_id.get())

    async with wire(Echo(unary=tell)) as on:
        call = on.stub.Unary(StringValue(), metadata=(("x-request-id", "from-the-client"),))
        assert (await call).value == "from-the-client"
        assert dict(await call.trailing_metadata())["x-request-id"] == "from-the-client"


@pytest.mark.parametrize("given", [(), (("x-request-id", ""),), (("x-request-id", "x" * 129),)])
async def test_a_missing_or_absurd_request_id_is_replaced_by_a_fresh_one(given: tuple[tuple[str, str], ...]) -> None:
    async with wire(Echo()) as on:
        fresh = set()
        for _ in range(2):
            call = on.stub.Unary(StringValue(), metadata=given)
            await call
            fresh.add(dict(await call.trailing_metadata())["x-request-id"])
        assert len(fresh) == 2
        assert all(len(each) == 16 for each in fresh)


async def test_trailing_metadata_of_a_method_is_kept_beside_the_request_id() -> None:
    async def answer(request: StringValue, context: Any) -> StringValue:
        context.set_trailing_metadata((("x-model", "linucb"),))
        if request.value == "fail":
            raise errors.NotFound("nothing")
        return StringValue()

    async with wire(Echo(unary=answer)) as on:
        call = on.stub.Unary(StringValue())
        await call
        trailing = dict(await call.trailing_metadata())
        assert trailing["x-model"] == "linucb"
        assert "x-request-id" in trailing
        failed = await failure(on.stub.Unary(StringValue(value="fail")))
        assert {"x-model", "x-request-id"} <= dict(failed.trailing_metadata() or ()).keys()


async def test_an_error_with_a_very_long_value_still_reaches_the_client() -> None:
    error = errors.InvalidArgument("x" * 100_000, field="y" * 100_000, value="z" * 100_000, hint="h" * 100_000)
    async with wire(raising(error)) as on:
        assert (await failure(on.stub.Unary(StringValue()))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_calls_in_flight_and_their_time_are_measured() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: StringValue, context: Any) -> StringValue:
        started.set()
        await go_on.wait()
        return StringValue()

    async with wire(Echo(unary=wait)) as on:
        labels = {"method": f"/{NAME}/Unary"}
        sample = on.server.registry.get_sample_value
        call = on.stub.Unary(StringValue())
        await started.wait()
        assert sample("banditmesh_grpc_in_flight", labels) == 1
        go_on.set()
        await call
        await on.shown("banditmesh_grpc_in_flight", labels, 0)
        await on.shown("banditmesh_grpc_request_seconds_count", labels, 1)
        await on.counted(f"/{NAME}/Unary", "OK")


async def test_a_generator_is_closed_within_the_call_when_its_client_goes_away() -> None:
    in_flight_when_closed: asyncio.Queue[float | None] = asyncio.Queue()

    async def endless(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        try:
            while True:
                yield StringValue(value="more")
        finally:
            sample = on.server.registry.get_sample_value
            in_flight_when_closed.put_nowait(sample("banditmesh_grpc_in_flight", {"method": f"/{NAME}/Stream"}))

    async with wire(Echo(stream=endless)) as on:
        call = on.stub.Stream(StringValue())
        await anext(aiter(call))
        call.cancel()
        assert await in_flight_when_closed.get() == 1
