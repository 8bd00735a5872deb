"""How a server serves: addresses, limits, certificates; and what of it gRPC is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.tls import ServerTls

ANY_LOCAL_PORT = HostPort("127.0.0.1", 0)


@dataclass(frozen=True)
class ServerOptions:
    """How to serve; a service's ``launch`` fills it from its settings."""

    address: HostPort = ANY_LOCAL_PORT
    metrics: HostPort | None = None
    """None: no HTTP endpoint (tests read the registry)."""
    max_message_bytes: int = 4 * 1024 * 1024
    default_deadline_s: float = 10.0
    """For unary methods whose client sent no deadline. Streams have none unless ``deadlines_s`` says so."""
    deadlines_s: Mapping[str, float | None] = field(default_factory=dict)
    """By full method name (``/banditmesh.importer.v1.Importer/WatchImportJob``); None: no default deadline."""
    drain_delay_s: float = 0.0
    grace_s: float = 10.0
    task_stop_s: float = 15.0
    """What background tasks get for their clean-up (finish a Kafka transaction, leave the group)."""
    reuse_port: bool = False
    reflection: bool = True
    tls: ServerTls | None = None
    """None: plaintext."""
    health: HostPort | None = None
    """A plaintext port that serves health alone: Kubernetes' gRPC probes speak no TLS."""
    max_concurrent_rpcs: int = 1024
    """Unary calls that are worked on at once, and as many streams; one more gets RESOURCE_EXHAUSTED."""
    max_waiting_rpcs: int = 2048
    """Calls that may stand in line in front of the event loop; one more is cut off by the transport, without a word."""
    max_metadata_bytes: int = 8192
    max_connections: int = 4096
    handshake_timeout_s: float = 10.0
    """What a client gets to begin HTTP/2, TLS included."""
    max_connection_age_s: float = 120.0
    """After about this long (±10 %) a client is asked to connect again, and finds the servers that have come
    meanwhile."""
    connection_grace_s: float = 600.0
    """What its calls get to finish on the old connection."""


def channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    """Options of the ``grpc.aio.server``."""
    return [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
        # grpc shares a port by default: a second process on it would silently take half of the calls.
        ("grpc.so_reuseport", int(options.reuse_port)),
        # A client that vanished without a FIN (a node lost) is noticed within 40 s; its streams end.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ping this often; after two pings too many they are sent away (GOAWAY, too_many_pings).
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        # Who connects and says nothing holds one of the connections no longer than this; grpc's default is 2 minutes.
        ("grpc.server_handshake_timeout_ms", round(options.handshake_timeout_s * 1000)),
        # grpc adds the jitter.
        ("grpc.max_connection_age_ms", round(options.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(options.connection_grace_s * 1000)),
        ("grpc.max_allowed_incoming_connections", options.max_connections),
        ("grpc.max_metadata_size", options.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * options.max_metadata_bytes),
        # grpc.aio takes one call out of this line in each turn of the event loop. Whoever stands in it past its
        # deadline is answered in vain, so it has to be short; grpc's own default is a random choice between 1000 and
        # 3000 calls, a second or more.
        ("grpc.server.max_pending_requests", options.max_waiting_rpcs),
        ("grpc.server.max_pending_requests_hard_limit", options.max_waiting_rpcs),
        ("grpc.enable_channelz", 1),
    ]
