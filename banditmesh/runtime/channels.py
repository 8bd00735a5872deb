"""How clients of the mesh connect: to every pod behind a name, and to those that come later."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import grpc

from banditmesh.runtime.errors import ConfigurationError, DeadlineExceeded, MeshError, Unavailable, from_rpc_error
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.tls import ClientTls, Stamp, stamp

log = get_logger(__name__)

LOOK_EVERY_S: Final = 10.0
"""How often the files of a client's certificates are looked at."""
OLD_CHANNEL_S: Final = 30.0
"""What calls get to finish on a channel that was replaced."""
StubT = TypeVar("StubT")

CHANNEL_OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    # A headless Service resolves to every pod; without this all calls would go to the first one.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.enable_retries", 0),  # retries are here, within the caller's deadline
    # A server that vanished without a word is noticed within 25 s, and looked for again every second: the default of up
    # to two minutes would keep a slot empty long after the server is back.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name how long an attempt to connect may take: a TLS handshake with a busy server takes its time.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Servers end connections when they are old or stop; the name is looked up again then, at most this often (default:
    # 30 s). Where a roll-out replaces the only pod, calls wait for that: no longer than a call's usual deadline.
    ("grpc.dns_min_time_between_resolutions_ms", 500),
)


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None = None, options: Sequence[tuple[str, int | str]] = ()
) -> grpc.aio.Channel:
    """A channel to a gRPC target such as ``dns:///engine:50051``; ``credentials`` for TLS, ``options`` beside those of
    every client."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, (*CHANNEL_OPTIONS, *options))
    return grpc.aio.secure_channel(target, credentials, (*CHANNEL_OPTIONS, *options))


def failed_call(error: grpc.aio.AioRpcError | MeshError, who: str, target: str, setting: str) -> MeshError:
    """What a command ends with whose call has failed: who was called, where, and why.

    Args:
        error: Of the call.
        who: The service, in a word.
        target: Where it was called.
        setting: What names the target.
    """
    found = error if isinstance(error, MeshError) else from_rpc_error(error)
    if not isinstance(found, Unavailable | DeadlineExceeded):  # it has answered, and says itself what is wrong
        return found
    if found.metadata:
        return Unavailable(f"the {who} at {target} answers: {found.message}", hint=found.hint)
    return Unavailable(f"the {who} at {target} does not answer: {found.message}", hint=f"see {setting}")


class Connection(Generic[StubT]):
    """A stub whose channel is opened anew when the files of its certificates have changed; belongs to one event loop.

    grpc reads a client's certificates once, when the channel is made. So the files are looked at now and then, a new
    channel takes over, and the old one ends when its calls have.
    """

    def __init__(
        self,
        target: str,
        stub: Callable[[grpc.aio.Channel], StubT],
        tls: ClientTls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        """``credentials`` are taken as they are where they are given, else those of ``tls``; neither: plaintext.
        Raises ConfigurationError when a file of ``tls`` cannot be used."""
        self._target = target
        self._new_stub = stub
        self._tls = tls if credentials is None else None
        self._options = (*options, *(tls.options if tls is not None else ()))
        self._stamp: Stamp = stamp(self._tls.files) if self._tls is not None else ()
        self._look_at_s = 0.0
        self._ending: set[asyncio.Task[None]] = set()
        self._open(credentials if self._tls is None else self._tls.credentials())

    @property
    def stub(self) -> StubT:
        """To call with; ask for it each time."""
        if self._tls is not None and time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + LOOK_EVERY_S
            self._look(self._tls)
        return self._stub

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _open(self, credentials: grpc.ChannelCredentials | None) -> None:
        self._channel = open_channel(self._target, credentials, self._options)
        self._stub = self._new_stub(self._channel)

    def _look(self, tls: ClientTls) -> None:
        try:
            now = stamp(tls.files)
            if now == self._stamp:
                return
            self._stamp = now
            credentials = tls.credentials()
        except ConfigurationError as error:  # half written, or broken: what is there serves on
            log.warning("new certificate refused; the old one is used on", target=self._target, error=str(error))
            return
        old = self._channel
        self._open(credentials)
        ending = asyncio.create_task(old.close(OLD_CHANNEL_S))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
