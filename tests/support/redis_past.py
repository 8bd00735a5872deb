"""A Redis that goes back in time, as one does when a replica without the newest writes is promoted."""

from __future__ import annotations

from dataclasses import dataclass

from banditmesh.runtime.redis import RedisClient


@dataclass(frozen=True)
class Past:
    """Everything that stood in a single-node Redis at some moment: serialised value and remaining time to live, ms, by
    key."""

    values: dict[bytes, tuple[bytes, int]]


async def remember(redis: RedisClient) -> Past:
    """What stands there now, as of one moment."""
    names: list[bytes] = await redis.client.keys("*")  # type: ignore[assignment]
    pipeline = redis.pipeline(transaction=True)
    for name in names:
        pipeline.dump(name)
        pipeline.pttl(name)
    found = await pipeline.execute()
    values = zip(names, found[::2], found[1::2], strict=True)
    return Past({name: (value, max(ttl, 0)) for name, value, ttl in values if value is not None})


async def go_back(redis: RedisClient, past: Past) -> None:
    """Let stand there what stood there then, and nothing else, in one step."""
    pipeline = redis.pipeline(transaction=True)
    pipeline.flushall()
    for name, (value, ttl) in past.values.items():
        pipeline.restore(name, ttl, value)
    await pipeline.execute()
