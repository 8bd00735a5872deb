"""Probes for health checks: that Redis takes writes, and that it is set to keep what it has taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoPermissionError, ResponseError

from banditmesh.runtime import keys
from banditmesh.runtime.errors import FailedPrecondition
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.redis import RedisClient

log = get_logger(__name__)

_HEALTH_TTL_MS = 10_000
_MOST_NUMBERS = 10_000
"""Health keys that are tried to find one of each primary of a Cluster."""


class RedisHealth:
    """Probes of one Redis.

    :meth:`writable` belongs to services that write. :meth:`keeps` looks whether Redis forgets by itself; what relies on
    Redis (``relies``) is then not well, others are warned once.
    """

    def __init__(self, redis: RedisClient, *, relies: bool) -> None:
        self._redis = redis
        self._relies = relies
        self._said: tuple[str, ...] = ()
        self._evicts: tuple[str, ...] | None = None
        """What was seen of eviction when Redis was last asked; None: it was not asked yet."""

    async def writable(self) -> None:
        """Raise Unavailable when a primary does not take a write: a demoted one still answers ``PING``."""
        async with self._redis.guarded():
            for number in await self._one_for_each_primary():
                await self._redis.client.set(keys.health(number), b"1", px=_HEALTH_TTL_MS)

    async def keeps(self) -> None:
        """Raise FailedPrecondition when Redis may forget what the mesh relies on; names the setting and its value.

        Raises Unavailable when it does not answer.
        """
        problems, unknown = await self._problems()
        if problems and self._relies:
            raise FailedPrecondition(
                f"Redis at {self._redis.address} may forget what it has acknowledged: {'; '.join(problems)}",
                hint="set maxmemory-policy noeviction, and appendonly yes or a replica (docs/operations.md)",
            )
        self._say(problems, unknown)

    async def may_be_relied_on(self) -> None:
        """Raise FailedPrecondition while Redis throws away what it holds, as far as :meth:`keeps` saw it last; before
        its first look this looks itself. For work whose result would be missing reactions, silently.

        That Redis may forget everything at once, without a log on disk, is no reason: progress goes with it.
        """
        if self._evicts is None:
            await self._problems()
        if self._evicts:
            raise FailedPrecondition(
                f"Redis at {self._redis.address} throws away what it holds: {'; '.join(self._evicts)}",
                hint="set maxmemory-policy noeviction (docs/operations.md); until then nothing is joined",
            )

    def _say(self, problems: list[str], unknown: bool) -> None:
        """Warn when it is something else than the last time."""
        now = (*problems, "unknown" if unknown else "")
        if now == self._said:
            return
        self._said = now
        for problem in problems:
            log.warning("redis may forget what it has acknowledged", redis=str(self._redis.address), problem=problem)
        if unknown:
            log.warning(
                "this redis user may not read INFO, so it is not known whether redis keeps what it acknowledges",
                redis=str(self._redis.address),
                hint="see to maxmemory-policy noeviction and appendonly yes",
            )

    async def _problems(self) -> tuple[list[str], bool]:
        """What is wrong on any primary, and whether it cannot be told."""
        problems: list[str] = []
        async with self._redis.guarded():
            try:
                infos = await self._infos()
                for node, info in infos.items():
                    problems += [f"{problem}{node}" for problem in forgetful(info)]
                self._evicts = tuple(f"{each}{node}" for node, info in infos.items() for each in evicting(info))
            except ResponseError as error:
                if not _forbidden(error):
                    raise
                self._evicts = ()
                return [], True
        return problems, False

    async def _infos(self) -> Mapping[str, Mapping[str, Any]]:
        """``INFO`` of each primary, by where it is, in words to be appended."""
        client = self._redis.client
        if not isinstance(client, RedisCluster):
            return {"": await client.info()}
        await client.initialize()
        return {f" at {node.name}": await client.info(target_nodes=node) for node in client.get_primaries()}

    async def _one_for_each_primary(self) -> list[int]:
        client = self._redis.client
        if not isinstance(client, RedisCluster):
            return [0]
        await client.initialize()
        names = {node.name for node in client.get_primaries()}
        found: dict[str, int] = {}
        for number in range(_MOST_NUMBERS):
            node = client.get_node_from_key(keys.health(number))
            if node is not None:
                found.setdefault(node.name, number)
            if found.keys() == names:
                break
        return list(found.values())


def forgetful(info: Mapping[str, Any]) -> list[str]:
    """What in an answer to ``INFO`` means that Redis may forget, one line each.

    A key without a time to live is the exception in the mesh, so under any policy but ``noeviction`` a full Redis
    throws away reactions and candidates. What a node has only in memory is gone when it is restarted, unless a replica
    has it.
    """
    problems = evicting(info)
    if str(info.get("aof_enabled", 1)) == "0" and not int(info.get("connected_slaves", 0)):
        problems.append("appendonly is no and there is no replica, must be appendonly yes (or a replica)")
    return problems


def evicting(info: Mapping[str, Any]) -> list[str]:
    """What in an answer to ``INFO`` means that a full Redis throws keys away: one line, or none."""
    policy = info.get("maxmemory_policy")
    return [] if policy in (None, "noeviction") else [f"maxmemory-policy is {policy}, must be noeviction"]


def _forbidden(error: Exception) -> bool:
    return isinstance(error, NoPermissionError) or "unknown command" in str(error).lower()
