"""How clients of the mesh connect: to every pod behind a name, and to those that come later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import grpc

CHANNEL_OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    # A headless Service resolves to every pod; without this all calls would go to the first one.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.enable_retries", 0),  # retries are here, within the caller's deadline
    # A server that vanished without a word is noticed within 25 s, and looked for again every second: the default of up
    # to two minutes would keep a slot empty long after the server is back.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Servers end connections when they are old; the name is looked up again then, at most this often (default: 30 s).
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
)


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None = None, options: Sequence[tuple[str, int | str]] = ()
) -> grpc.aio.Channel:
    """A channel to a gRPC target such as ``dns:///engine:50051``; ``credentials`` for TLS, ``options`` beside those of
    every client."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, (*CHANNEL_OPTIONS, *options))
    return grpc.aio.secure_channel(target, credentials, (*CHANNEL_OPTIONS, *options))
