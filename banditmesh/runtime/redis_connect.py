"""redis-py clients for an address: one node, a Cluster, or a primary that Sentinels know.

What is other than redis-py 8.1 has it by default:

- No maintenance notifications. With them (they come with RESP3) the pool no longer looks whether a connection that it
  gives out was closed by the server meanwhile, so that every connection that died in an outage fails one call.
- A connection that was not used for some seconds is asked for a ``PING`` first: a peer that went away without a word
  (a host that died, a firewall that forgot) shows itself before anything is sent that could not be repeated.
- Commands of many keys are packed in C.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Self

import hiredis
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError
from redis.maint_notifications import MaintNotificationsConfig
from redis.typing import EncodableT

from banditmesh.runtime.addresses import RedisAddress
from banditmesh.runtime.key_prefix import prefixed

_OF_MANY_WORDS = {"MGET", b"MGET", "EVAL", b"EVAL"}
IDLE_S = 5.0
"""A connection that rested for so long is tried before it is used."""
_LEAST_CONNECT_S = 0.2
_TLS_CONNECT_S = 1.0


class _MeshConnection(AbstractConnection):
    """Packs commands with the prefix, those of many words in C: redis-py 8.1 asyncio packs them in Python, which is
    most of what an ``MGET`` costs (9 µs for the 7 keys of a user; 1 µs here)."""

    prefix = b""
    used_at_s = 0.0

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        if self.prefix:
            args = tuple(prefixed(args, self.prefix))
        if args[0] in _OF_MANY_WORDS:
            return [hiredis.pack_command(args)]  # type: ignore[arg-type]  # typed as a tuple of one
        return super().pack_command(*args)

    async def send_now(self, packed: list[bytes]) -> None:
        """``send_packed_command`` without the task that its ``asyncio.wait_for`` makes for each command. Raises OSError
        and TimeoutError as they come."""
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command(packed)
        except BaseException:  # half a command may be out: nothing else can go over this connection
            await self.disconnect(nowait=True)
            raise

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        """Raises OSError also when the connection was closed beneath the caller, by the server or by another task that
        looks the servers up again: redis-py 8.1 raises AttributeError then, and uvloop RuntimeError."""
        writer = self._writer
        if writer is None:
            raise OSError("the connection is closed")
        try:
            writer.writelines(command)
        except RuntimeError as error:
            raise OSError("the connection is closed") from error
        await writer.drain()

    async def answers(self) -> None:
        """Raise redis-py's ConnectionError or TimeoutError when the server does not answer over this connection."""
        await self.send_command("PING", check_health=False)
        await self.read_response()


class _Plain(_MeshConnection, Connection):
    pass


class _Tls(_MeshConnection, SSLConnection):
    pass


class _BySentinel(_MeshConnection, SentinelManagedConnection):
    pass


class _TlsBySentinel(_MeshConnection, SentinelManagedSSLConnection):
    pass


class _TriedPool(ConnectionPool):
    """A pool that tries a connection which has rested before it gives it out."""

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        assert isinstance(connection, _MeshConnection)
        was_open = connection.is_connected
        await super().ensure_connection(connection)
        now_s = asyncio.get_running_loop().time()
        rested_s, connection.used_at_s = now_s - connection.used_at_s, now_s
        if was_open and rested_s > IDLE_S:
            try:
                await connection.answers()
            except (ConnectionError, TimeoutError):
                await connection.disconnect(nowait=True)
                await connection.connect()  # type: ignore[no-untyped-call]


class _TriedSentinelPool(_TriedPool, SentinelConnectionPool):
    pass


class Connected:
    """A redis-py client and what it takes to make it forget what it knows of the servers."""

    def __init__(
        self, client: Redis | RedisCluster, *, first_nodes: Sequence[ClusterNode] = (), sentinel: Sentinel | None = None
    ) -> None:
        self.client = client
        self._first_nodes = first_nodes
        self._sentinel = sentinel

    @classmethod
    def to(cls, address: RedisAddress, *, timeout_s: float, max_connections: int) -> Self:
        """A client that connects with its first command. ``timeout_s``: of each command and of connecting."""
        options = _options(address, timeout_s)
        if address.kind == "cluster":
            return cls._to_cluster(address, options, max_connections)
        # No retry inside: a caller with a deadline decides itself.
        options |= {"retry": Retry(NoBackoff(), 0), "db": address.database, "max_connections": max_connections}
        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
        if address.kind == "sentinel":
            sentinel = _sentinel(address, timeout_s)
            kind = _of_mesh(_TlsBySentinel if address.tls else _BySentinel, address)
            watched: Any = _TriedSentinelPool  # redis-py has no types here
            pool = watched(address.service, sentinel, connection_class=kind, **options)
            return cls(Redis.from_pool(pool), sentinel=sentinel)
        (node,) = address.nodes
        kind = _of_mesh(_Tls if address.tls else _Plain, address)
        return cls(Redis.from_pool(_TriedPool(connection_class=kind, host=node.host, port=node.port, **options)))

    @classmethod
    def _to_cluster(cls, address: RedisAddress, options: dict[str, Any], max_connections: int) -> Self:
        options |= {"max_connections": max_connections, "ssl": address.tls}
        client = RedisCluster(
            startup_nodes=[ClusterNode(node.host, node.port) for node in address.nodes],
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **options,
        )
        # Its constructor takes no class of connections.
        kind = _of_mesh(_Tls if address.tls else _Plain, address)
        client.connection_kwargs["connection_class"] = kind
        first_nodes = list(client.nodes_manager.startup_nodes.values())
        for node in first_nodes:
            node.connection_class = kind  # type: ignore[assignment]
        return cls(client, first_nodes=first_nodes)

    async def look_up_again(self) -> None:
        """Close what rests, mark what is in use to be closed after it, and ask anew where the servers are: names are
        looked up with the next connection, Sentinels asked, a Cluster's map read."""
        client = self.client
        if isinstance(client, RedisCluster):
            for node in client.nodes_manager.nodes_cache.values():
                node.update_active_connections_for_reconnect()
                await node.disconnect_free_connections()
            # Once redis-py 8.1 knows the cluster it asks only those that were in it; all of them may be gone.
            for node in self._first_nodes:
                client.nodes_manager.startup_nodes.setdefault(node.name, node)
            client._initialize = True
            return
        pool = client.connection_pool
        await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        await pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()
        # redis-py 8.1 puts others in their place once it knows the cluster, and forgets that they have connections.
        for node in self._first_nodes:
            await node.disconnect()


def _of_mesh(kind: type[_MeshConnection], address: RedisAddress) -> type[_MeshConnection]:
    prefix = address.access.prefix.encode()
    return type(kind.__name__, (kind,), {"prefix": prefix}) if prefix else kind


def _options(address: RedisAddress, timeout_s: float) -> dict[str, Any]:
    access = address.access
    return {
        **dict(address.options),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": max(timeout_s, _TLS_CONNECT_S if address.tls else _LEAST_CONNECT_S),
        "socket_keepalive": True,
        "username": address.username or access.username,
        "password": address.password or access.password,
        **_tls_options(address),
    }


def _tls_options(address: RedisAddress) -> dict[str, Any]:
    access = address.access
    files = {
        "ssl_ca_certs": access.ca_file,
        "ssl_certfile": access.certificate_file,
        "ssl_keyfile": access.key_file,
    }
    return {name: str(file) for name, file in files.items() if file is not None} if address.tls else {}


def _sentinel(address: RedisAddress, timeout_s: float) -> Sentinel:
    access = address.access
    return Sentinel(  # type: ignore[no-untyped-call]
        [(node.host, node.port) for node in address.nodes],
        sentinel_kwargs={
            "socket_timeout": max(timeout_s, _LEAST_CONNECT_S),
            "socket_connect_timeout": max(timeout_s, _LEAST_CONNECT_S),
            "username": access.sentinel_username,
            "password": access.sentinel_password,
            "ssl": address.tls,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
            **_tls_options(address),
        },
    )
