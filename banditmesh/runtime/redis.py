"""Redis or Valkey, one node or a Cluster, behind the few operations that the mesh needs.

URLs: ``redis://host:6379/0`` (or ``rediss://``) for one node, ``redis+cluster://host:6379`` (or ``rediss+cluster://``)
for a Cluster.

What costs is client CPU a command (measured with redis-py 8.1: ``MGET`` 2.5 µs a key, a lone command 138 µs), so a
batch of users is read with one ``MGET`` on one node, and with one ``MGET`` a user, one pipeline a node, on a Cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate, chain, pairwise

import hiredis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode, ClusterPipeline, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.typing import EncodableT

from banditmesh.runtime.addresses import RedisAddress
from banditmesh.runtime.errors import Unavailable

RETRY_AFTER_S = 1.0


class _HiredisPacking(AbstractConnection):
    """Packs commands of many keys in C. redis-py 8.1 asyncio packs them in Python, which is most of what an ``MGET``
    costs (9 µs for the 7 keys of a user; 1 µs here)."""

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        if args[0] == "MGET":
            return [hiredis.pack_command(args)]  # type: ignore[arg-type]  # typed as a tuple of one
        return super().pack_command(*args)

    async def send_now(self, packed: list[bytes]) -> None:
        """``send_packed_command`` without the task that its ``asyncio.wait_for`` makes for each command. Raises OSError
        and TimeoutError as they come."""
        writer = self._writer
        if writer is None:
            raise OSError("the connection is closed")
        try:
            async with asyncio.timeout(self.socket_timeout):
                writer.writelines(packed)
                await writer.drain()
        except BaseException:  # half a command may be out: nothing else can go over this connection
            await self.disconnect(nowait=True)
            raise


class _Connection(_HiredisPacking, Connection):
    pass


class _TlsConnection(_HiredisPacking, SSLConnection):
    pass


_PACKING: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _Connection,
    SSLConnection: _TlsConnection,
}


class RedisClient:
    """A connection to Redis. Close it with :meth:`close`.

    ``client`` is the plain redis-py client for what has no method here; wrap its use in :meth:`guarded`.
    """

    def __init__(self, address: RedisAddress | str, *, timeout_s: float, max_connections: int = 100) -> None:
        """Does not connect yet.

        Args:
            address: Of the settings, or a URL as in the module.
            timeout_s: Of each command, connecting included.
            max_connections: A node.
        """
        parsed = RedisAddress.parse(address) if isinstance(address, str) else address
        self.is_cluster = parsed.cluster
        self._address = str(parsed)
        connect_s = max(timeout_s, 0.2)
        self.client: Redis | RedisCluster
        self._first_nodes: list[ClusterNode] = []
        if self.is_cluster:
            self.client = RedisCluster.from_url(
                parsed.url.replace("+cluster://", "://", 1),
                socket_timeout=timeout_s,
                socket_connect_timeout=connect_s,
                max_connections=max_connections,
            )
            # redis-py 8.1 puts others in their place once it knows the cluster, and forgets that they have connections.
            self._first_nodes = list(self.client.nodes_manager.startup_nodes.values())
        else:
            self.client = Redis.from_url(
                parsed.url,
                socket_timeout=timeout_s,
                socket_connect_timeout=connect_s,
                max_connections=max_connections,
                # No retry inside: a caller with a deadline decides itself.
                retry=Retry(NoBackoff(), 0),
            )
            pool = self.client.connection_pool
            pool.connection_class = _PACKING[pool.connection_class]

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()
        for node in self._first_nodes:
            await node.disconnect()

    @asynccontextmanager
    async def guarded(self) -> AsyncIterator[None]:
        """Turn what redis-py raises inside into :class:`Unavailable`, naming the server.

        A cancellation gets through: redis-py 8.1 sends with ``asyncio.wait_for``, which before Python 3.12 swallows one
        that comes when the sending is just done, and a loop that is cancelled once would run on.
        """
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(
                f"Redis at {self._address} does not answer: {type(error).__name__}: {error}",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        if task and task.cancelling() > cancelled:
            raise asyncio.CancelledError

    async def ping(self) -> None:
        """Raise :class:`Unavailable` when Redis does not answer."""
        async with self.guarded():
            await self.client.ping()

    async def read_users(self, keys: Sequence[Sequence[str]]) -> list[list[bytes | None]]:
        """Read all keys of several users in one round trip.

        Args:
            keys: For each user the keys wanted; the keys of one user share a hash tag.

        Returns:
            For each user the values, in the order of the keys; None where a key does not exist.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        if not keys:
            return []
        async with self.guarded():
            if self.is_cluster:
                pipeline = self.client.pipeline()
                for wanted in keys:
                    # Not `mget`, which redis-py blocks here since the keys of one might lie on several nodes.
                    pipeline.execute_command("MGET", *wanted)
                answers: list[list[bytes | None]] = await pipeline.execute()
                return answers
            values: list[bytes | None] = await self._mget(list(chain.from_iterable(keys)))
            ends = accumulate((len(wanted) for wanted in keys), initial=0)
            return [values[start:end] for start, end in pairwise(ends)]

    async def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read keys of any slots in one round trip (on a Cluster: one a slot, together).

        Raises:
            Unavailable: Redis did not answer in time.
        """
        if not keys:
            return []
        async with self.guarded():
            return await self._mget(list(keys))

    async def _mget(self, keys: list[str]) -> list[bytes | None]:
        """``MGET``; bytes, since the client is told to decode nothing."""
        if isinstance(self.client, RedisCluster):
            return list(await self.client.mget_nonatomic(keys))
        # Past redis-py's layers for a single command (retries, metrics, callbacks), which cost 60 µs here.
        pool = self.client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_now(connection.pack_command("MGET", *keys))
            answer: list[bytes | None] = await connection.read_response()
        finally:
            await pool.release(connection)
        return answer

    def pipeline(self, *, transaction: bool = False) -> Pipeline | ClusterPipeline:
        """Return a pipeline; with ``transaction`` (keys of one hash tag only) it is a ``MULTI``.

        On a Cluster something must have been awaited before the first transaction, such as :meth:`ping`: redis-py 8.1
        otherwise learns the topology on an event loop of its own, and the connections that it keeps from there are
        dead.
        """
        return self.client.pipeline(transaction=transaction)


RedisStore = RedisClient
"""Until nothing calls it so any more."""
