"""A gRPC service with one method of each shape, whose behaviour a test gives as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue

NAME = "banditmesh.testing.v1.Echo"
SHAPES = {"Unary": (False, False), "Stream": (False, True), "Collect": (True, False), "Chat": (True, True)}
"""Method: (request streams, response streams)."""


def _describe() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="banditmesh/testing/v1/echo.proto",
        package="banditmesh.testing.v1",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    service = file.service.add(name="Echo")
    for method, (request_streams, response_streams) in SHAPES.items():
        service.method.add(
            name=method,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=request_streams,
            server_streaming=response_streams,
        )
    return descriptor_pool.Default().AddSerializedFile(file.SerializeToString()).services_by_name["Echo"]


DESCRIPTOR = _describe()


async def unary(request: StringValue, context: Any) -> StringValue:
    return StringValue(value=request.value)


async def stream(request: StringValue, context: Any) -> Any:
    for letter in request.value:
        yield StringValue(value=letter)


async def collect(requests: Any, context: Any) -> StringValue:
    return StringValue(value="".join([request.value async for request in requests]))


async def chat(requests: Any, context: Any) -> Any:
    async for request in requests:
        yield StringValue(value=request.value)


class Echo:
    """The servicer."""

    def __init__(
        self,
        unary: Callable[..., Any] = unary,
        stream: Callable[..., Any] = stream,
        collect: Callable[..., Any] = collect,
        chat: Callable[..., Any] = chat,
    ) -> None:
        self.behaviours = {"Unary": unary, "Stream": stream, "Collect": collect, "Chat": chat}


def add_echo_to_server(servicer: Echo, server: grpc.aio.Server) -> None:
    """As generated code does it."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    handlers = {
        method: make[shape](servicer.behaviours[method], StringValue.FromString, StringValue.SerializeToString)
        for method, shape in SHAPES.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
    server.add_registered_method_handlers(NAME, handlers)


class EchoStub:
    """``stub.Unary(StringValue(value="x"))`` and so on; ``raw=True`` sends and receives bytes."""

    def __init__(self, channel: grpc.aio.Channel, *, raw: bool = False) -> None:
        codec = (bytes, bytes) if raw else (StringValue.SerializeToString, StringValue.FromString)
        self.Unary: Any = channel.unary_unary(f"/{NAME}/Unary", *codec)
        self.Stream: Any = channel.unary_stream(f"/{NAME}/Stream", *codec)
        self.Collect: Any = channel.stream_unary(f"/{NAME}/Collect", *codec)
        self.Chat: Any = channel.stream_stream(f"/{NAME}/Chat", *codec)
