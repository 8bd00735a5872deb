"""The index of a service's contents: the importer keeps it, refreshes walk it, and an engine that retrieves reads it at
its start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisClient


async def known_contents(redis: RedisClient, service: str, most: int) -> AsyncIterator[list[str]]:
    """Yield the ids of a service's known contents, at most ``most`` at a time; one may come twice, and one whose time
    has passed may still be among them. Raises Unavailable."""
    commands: Any = redis.client
    cursor = 0
    waiting: list[str] = []
    while True:
        async with redis.guarded():
            cursor, found = await commands.sscan(keys.known_contents(service), cursor, count=most)
        waiting += [content_id.decode() for content_id in found]
        while len(waiting) >= most:
            yield waiting[:most]
            waiting = waiting[most:]
        if not cursor:
            break
    if waiting:
        yield waiting
