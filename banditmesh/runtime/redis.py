"""Redis or Valkey, one node or a Cluster, behind the few operations that the mesh needs.

URLs: ``redis://host:6379/0`` (or ``rediss://``) for one node, ``redis+cluster://host:6379`` (or ``rediss+cluster://``) for a Cluster.

What costs is client CPU a command (measured with redis-py 8.1: ``MGET`` 2.5 µs a key, a lone command 138 µs), so a batch of users is
read with one ``MGET`` on one node, and with one ``MGET`` a user, one pipeline a node, on a Cluster.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate, chain, pairwise

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterPipeline, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from banditmesh.runtime.errors import Unavailable

RETRY_AFTER_S = 1.0


class RedisStore:
    """A connection to Redis. Close it with :meth:`close`.

    ``client`` is the plain redis-py client for what has no method here; wrap its use in :meth:`guarded`.
    """

    def __init__(self, url: str, *, timeout_s: float, max_connections: int = 100) -> None:
        """Does not connect yet.

        Args:
            url: See the module.
            timeout_s: Of each command, connecting included.
            max_connections: A node.
        """
        self.is_cluster = "+cluster://" in url
        self._address = url.rpartition("@")[2]
        settings = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": max(timeout_s, 0.2),
            "max_connections": max_connections,
        }
        plain = url.replace("+cluster://", "://")
        self.client: Redis | RedisCluster
        if self.is_cluster:
            self.client = RedisCluster.from_url(plain, **settings)
        else:
            # No retry inside: a caller with a deadline decides itself.
            self.client = Redis.from_url(plain, retry=Retry(NoBackoff(), 0), **settings)

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    @asynccontextmanager
    async def guarded(self) -> AsyncIterator[None]:
        """Turn what redis-py raises inside into :class:`Unavailable`, naming the server."""
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(
                f"Redis at {self._address} does not answer: {type(error).__name__}: {error}", retry_after_s=RETRY_AFTER_S
            ) from error

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
                    pipeline.mget(wanted)
                return list(await pipeline.execute())
            values = await self.client.mget(list(chain.from_iterable(keys)))
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
            if isinstance(self.client, RedisCluster):
                return list(await self.client.mget_nonatomic(list(keys)))
            return list(await self.client.mget(list(keys)))

    def pipeline(self, *, transaction: bool = False) -> Pipeline | ClusterPipeline:
        """Return a pipeline; with ``transaction`` (keys of one hash tag only) it is a ``MULTI``."""
        return self.client.pipeline(transaction=transaction)
