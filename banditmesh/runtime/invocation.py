"""From a method as it was registered to a coroutine function, whatever its shape: unary or stream, async generator or
writer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pool

from banditmesh.runtime.errors import DeadlineExceeded, InvalidArgument

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Invoke: TypeAlias = "Callable[[Any, Context], Awaitable[Any]]"
"""One call of a method, whatever its shape: takes what grpc.aio passes, writes streamed responses itself, returns a
unary response's bytes.
"""


def invocation(handler: Handler, parse: Callable[[bytes], Any]) -> Invoke:
    """One coroutine function for the method's shape (unary or stream, async generator or writer)."""
    if handler.response_streaming:
        respond: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
        generates = inspect.isasyncgenfunction(respond)
        if not generates:
            respond = _must_be_async(respond)

        async def stream(request: Any, context: Context) -> None:
            message = request if handler.request_streaming else parse(request)
            whole: Any = _WholeWrites(context)
            if not generates:
                await respond(message, whole)
                return
            async with aclosing(respond(message, whole)) as responses:
                async for response in responses:
                    await whole.write(response)

        return stream

    answer = _must_be_async(handler.stream_unary if handler.request_streaming else handler.unary_unary)
    serialize: Callable[[Any], bytes] = handler.response_serializer or bytes
    if handler.request_streaming:

        async def unary_of_stream(requests: Any, context: Context) -> bytes:
            return serialize(await answer(requests, context))

        return unary_of_stream

    async def unary(body: bytes, context: Context) -> bytes:
        return serialize(await answer(parse(body), context))

    return unary


class _WholeWrites:
    """The context of a call whose writes end before a cancellation goes on: while one is under way grpc takes no status
    (TOO_MANY_OPERATIONS), and the client would never hear of the end."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write(self, message: Any) -> None:
        writing = asyncio.ensure_future(self._context.write(message))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _must_be_async(behaviour: Any) -> Callable[..., Awaitable[Any]]:
    """Generated base classes answer a method that was not overridden with a plain function that raises
    NotImplementedError. Any other plain function would block the loop, so it is refused."""
    if inspect.iscoroutinefunction(behaviour):
        declared: Callable[..., Awaitable[Any]] = behaviour
        return declared

    async def not_async(request: Any, context: Context) -> Any:
        result = behaviour(request, context)
        if inspect.isawaitable(result):
            return await result
        raise TypeError(f"{behaviour!r} is neither a coroutine function nor an async generator function")

    return not_async


def parser(method: str, handler: Handler) -> Callable[[bytes], Any]:
    """Reads a request's body. Raises InvalidArgument when it is none."""
    deserialize = handler.request_deserializer or bytes

    def parse(body: bytes) -> Any:
        try:
            return deserialize(body)
        except Exception as error:  # DecodeError of protobuf, or whatever a generic handler's deserializer raises
            raise InvalidArgument(
                f"the request body ({len(body)} bytes) is not a valid {_request_type(method)} message",
                hint="generate the client from the current .proto files",
            ) from error

    return parse


def _request_type(method: str) -> str:
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", "."))
    except KeyError:  # a generic handler without a descriptor
        return "request"
    return str(descriptor.input_type.full_name)


async def within(seconds: float, call: Awaitable[Any]) -> Any:
    """Await a call for so long. Raises DeadlineExceeded."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await call
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded(
            f"the call took longer than the {seconds:g} s that calls without a deadline get",
            hint="set a deadline on the call",
        ) from None
