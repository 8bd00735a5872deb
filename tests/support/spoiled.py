"""Keys of Redis that somebody else has written to."""

from __future__ import annotations

from typing import Any

from banditmesh.runtime import keys


async def of_another_type(client: Any, key: str) -> None:
    """Let a key hold what no release writes there."""
    await client.delete(key)
    if keys.kind(key) == "string":
        await client.rpush(key, b"a list")
    else:
        await client.set(key, b"a string")
