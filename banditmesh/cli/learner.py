"""Calls of the learner from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

if TYPE_CHECKING:
    from banditmesh.contracts.learner.v1.learner_pb2_grpc import LearnerServiceAsyncStub

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
DEADLINE_S: Final = 30.0

LearnerTarget = Annotated[
    str,
    typer.Option(
        "--learner",
        envvar="BANDITMESH_LEARNER",
        help="The learner's gRPC target, such as dns:///mesh-learner:50055; `banditmesh up` prints it. "
        "BANDITMESH_CLIENT_CA, _CERT, _KEY and _API_KEY say how to call it.",
    ),
]


def call(target: str, work: Callable[[LearnerServiceAsyncStub, Metadata], Awaitable[T]]) -> T:
    """What ``work`` returns, given a stub and the metadata of its calls. Raises MeshError."""
    return asyncio.run(_call(target, work))


async def _call(target: str, work: Callable[[LearnerServiceAsyncStub, Metadata], Awaitable[T]]) -> T:
    import grpc

    from banditmesh.contracts.learner.v1 import learner_pb2_grpc
    from banditmesh.runtime.channels import failed_call, open_channel
    from banditmesh.runtime.settings import IsClient, load_settings
    from banditmesh.runtime.tls import ClientTls

    settings = load_settings(IsClient)
    tls = None
    if settings.client_ca is not None:
        tls = ClientTls(ca=settings.client_ca, cert=settings.client_cert, key=settings.client_key)
    credentials, options = (None, ()) if tls is None else (tls.credentials(), tls.options)
    key = settings.client_api_key
    metadata: Metadata = () if key is None else (("authorization", f"Bearer {key.get_secret_value()}"),)
    async with open_channel(target, credentials, options) as channel:
        try:
            stub: Any = learner_pb2_grpc.LearnerServiceStub(channel)  # asynchronous, as the channel is
            return await work(stub, metadata)
        except grpc.aio.AioRpcError as error:
            raise failed_call(error, "learner", target, "--learner, BANDITMESH_LEARNER") from error
