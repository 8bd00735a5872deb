"""The index of a service's contents: the importer keeps it, refreshes walk it, and an engine that retrieves reads it at
its start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from banditmesh.lengths import MAX_CONTENT_ID_BYTES
from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisClient


async def known_contents(redis: RedisClient, service: str, most: int) -> AsyncIterator[list[str]]:
    """Yield the ids of a service's known contents, at most ``most`` at a time; one may come twice, and one whose time
    has passed may still be among them. Raises Unavailable."""
    commands: Any = redis.client
    name = keys.known_contents(service)
    cursor = 0
    waiting: list[str] = []
    while True:
        async with redis.guarded(name):
            cursor, found = await commands.sscan(name, cursor, count=most)
        waiting += [each.decode() for each in found if _is_id(each)]
        while len(waiting) >= most:
            yield waiting[:most]
            waiting = waiting[most:]
        if not cursor:
            break
    if waiting:
        yield waiting


def _is_id(member: bytes) -> bool:
    """Whether a member is an id; whoever else wrote into the set, nothing is asked of a provider by it."""
    try:
        return 1 <= len(member) <= MAX_CONTENT_ID_BYTES and bool(member.decode())
    except UnicodeDecodeError:
        return False
