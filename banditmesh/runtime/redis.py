"""Redis or Valkey, one node or a Cluster, behind the few operations that the mesh needs.

A key that holds another type than the mesh writes (an operator's slip, another program) stops nobody: who meets it
(:meth:`RedisClient.guarded`) puts it aside, says so and counts it, fails once, and finds no key the next time.

URLs: ``redis://host:6379/0`` for one node, ``redis+cluster://host:6379,host:6379`` for a Cluster,
``redis+sentinel://host:26379,host:26379/mymaster`` for a primary that Sentinels know; ``rediss…`` for TLS.

What costs is client CPU a command (measured with redis-py 8.1: ``MGET`` 2.5 µs a key, a lone command 138 µs), so a
batch of users is read with one ``MGET`` on one node, and with one ``MGET`` a user, one pipeline a node, on a Cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import accumulate, chain, pairwise

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterPipeline, RedisCluster
from redis.exceptions import InvalidResponse, ResponseError

from banditmesh.runtime import keys as names_of
from banditmesh.runtime.addresses import RedisAddress
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.metrics import RedisMetrics
from banditmesh.runtime.redis_connect import Connected
from banditmesh.runtime.redis_errors import FAILURES, hint, in_words, is_of_the_server, may_be_elsewhere

log = get_logger(__name__)

RETRY_AFTER_S = 1.0
ASIDE_MS = 7 * 86_400_000
"""How long what was put aside is kept for somebody to look at."""

# KEYS: a key, and where it is put. ARGV: the type that it must have, how long to keep it. Returns the type that it had;
# nil: there is nothing to put aside.
_PUT_ASIDE = """
local found = redis.call('TYPE', KEYS[1]).ok
if found == 'none' or found == ARGV[1] then return false end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return found
"""


class RedisClient:
    """A connection to Redis. Close it with :meth:`close`.

    ``client`` is the plain redis-py client for what has no method here; wrap its use in :meth:`guarded`.
    """

    def __init__(
        self,
        address: RedisAddress | str,
        *,
        timeout_s: float,
        max_connections: int = 100,
        metrics: RedisMetrics | None = None,
    ) -> None:
        """Does not connect yet.

        Args:
            address: Of the settings, or a URL as in the module.
            timeout_s: Of each command, connecting included.
            max_connections: A node.
            metrics: None: nothing is counted.
        """
        self._metrics = metrics
        self.address = RedisAddress.parse(address) if isinstance(address, str) else address
        self.is_cluster = self.address.cluster
        self._connected = Connected.to(self.address, timeout_s=timeout_s, max_connections=max_connections)
        self.client: Redis | RedisCluster = self._connected.client
        self._was_primary = False

    async def close(self) -> None:
        """Close all connections."""
        await self._connected.close()

    @asynccontextmanager
    async def guarded(self, *names: str) -> AsyncIterator[None]:
        """Turn what redis-py raises inside into :class:`Unavailable`, naming the server and what it said.

        After a failure that a fail-over may be behind (a connection lost, a primary that has become a replica or does
        not serve), nothing of the old connections is used again: the next command looks the name up anew. A managed
        Redis demotes its primary, moves the name, and leaves the connections up.

        ``names``: the keys that are used inside. Those of another type than :func:`keys.kind` says are put aside when
        one is met, so that the next attempt gets on.

        A cancellation gets through: redis-py 8.1 sends with ``asyncio.wait_for``, which before Python 3.12 swallows one
        that comes when the sending is just done, and a loop that is cancelled once would run on.
        """
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            yield
        except FAILURES as error:
            if may_be_elsewhere(error):
                await self.look_up_again()
            if "WRONGTYPE" in str(error):
                await self._put_wrong_types_aside(names)
            raise Unavailable(
                f"Redis at {self.address} {in_words(error)}",
                hint=hint(error, self.address),
                retry_after_s=RETRY_AFTER_S,
                dependency="redis" if is_of_the_server(error) else None,
            ) from error
        if task and task.cancelling() > cancelled:
            raise asyncio.CancelledError

    async def _put_wrong_types_aside(self, names: Sequence[str]) -> None:
        """Put aside those of these keys that have another type than the mesh gives them; where that is refused, too,
        what is raised already says enough."""
        for name in names:
            kind = names_of.kind(name)
            with suppress(*FAILURES):
                found = await self.client.eval(_PUT_ASIDE, 2, name, names_of.aside(name), kind, ASIDE_MS)
                if found is not None:
                    self.put_aside(name, f"it is a {found.decode()}, must be a {kind}")

    def put_aside(self, name: str, why: str) -> None:
        """Say and count that what stood under a key, or a part of it, was put aside."""
        log.error("a key of Redis cannot be used and is put aside", key=name, reason=why, where=names_of.aside(name))
        if self._metrics is not None:
            self._metrics.put_aside.inc()

    async def look_up_again(self) -> None:
        """Use none of the connections again that are open now, and ask anew where the servers are."""
        with suppress(*FAILURES):  # what ends badly has ended
            await self._connected.look_up_again()

    async def ping(self) -> None:
        """Raise :class:`Unavailable` when Redis does not answer.

        A node that was the primary and is a replica now is left: what a reader gets from it may be old, and nothing
        that it is asked for fails.
        """
        async with self.guarded():
            await self.client.ping()
            role = None if self.is_cluster else await self._role()
        if self._was_primary and role == b"slave":
            log.warning("the primary has become a replica; looking its name up again", redis=str(self.address))
            await self.look_up_again()
        self._was_primary = role == b"master"

    async def _role(self) -> bytes | None:
        """``master`` or ``slave``; None where that may not be asked."""
        try:
            answer: list[bytes] = await self.client.execute_command("ROLE")
        except ResponseError:
            return None
        return answer[0]

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
                answers = await pipeline.execute()
                return [_values(answer, len(wanted)) for answer, wanted in zip(answers, keys, strict=True)]
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
            return _values(list(await self.client.mget_nonatomic(keys)), len(keys))
        # Past redis-py's layers for a single command (retries, metrics, callbacks), which cost 60 µs here.
        pool = self.client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_now(connection.pack_command("MGET", *keys))
            answer = await connection.read_response()
        finally:
            await pool.release(connection)
        return _values(answer, len(keys))

    def pipeline(self, *, transaction: bool = False) -> Pipeline | ClusterPipeline:
        """Return a pipeline; with ``transaction`` (keys of one hash tag only) it is a ``MULTI``.

        On a Cluster something must have been awaited before the first transaction, such as :meth:`ping`: redis-py 8.1
        otherwise learns the topology on an event loop of its own, and the connections that it keeps from there are
        dead.
        """
        return self.client.pipeline(transaction=transaction)


def _values(answer: object, n: int) -> list[bytes | None]:
    """What ``MGET`` of ``n`` keys has answered. Raises InvalidResponse when that is none: what answers is no Redis, or
    the connection has come out of step and says what another command was told."""
    if not isinstance(answer, list) or len(answer) != n:
        raise InvalidResponse(f"MGET of {n} keys is answered with {str(answer)[:80]}")
    return answer
