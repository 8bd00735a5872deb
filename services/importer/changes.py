"""The stream of changes that engines follow.

- ``kind=content``, ``keys=`` (packed ``<u8`` content keys): contents that are new, changed or gone; read them again.
- ``kind=live``, ``source=`` (``service/logic`` or ``profiles``), ``version=``, ``slot=``: a new version is live.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from banditmesh.runtime import keys, packing
from banditmesh.runtime.redis import RedisClient

MAX_CHANGES = 100_000
"""About how many entries the stream keeps; an engine that is further behind starts afresh."""
CHANGES_TTL_S = 30 * 86400.0
KEYS_AN_ENTRY = 500


class Changes:
    """Writes the stream."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def contents(self, content_keys: Sequence[int]) -> None:
        """Announce contents. Raises Unavailable."""
        for start in range(0, len(content_keys), KEYS_AN_ENTRY):
            packed = np.array(content_keys[start : start + KEYS_AN_ENTRY], "<u8").tobytes()
            await self._add({"kind": "content", "keys": packed})

    async def live(self, source: str, live: packing.LiveVersion) -> None:
        """Announce a version. Raises Unavailable."""
        await self._add({"kind": "live", "source": source, "version": live.version, "slot": live.slot})

    async def _add(self, fields: dict[Any, Any]) -> None:
        pipeline = self._redis.pipeline()
        pipeline.xadd(keys.CHANGES, fields, maxlen=MAX_CHANGES, approximate=True)
        pipeline.pexpire(keys.CHANGES, int(CHANGES_TTL_S * 1000))
        async with self._redis.guarded(keys.CHANGES):
            await pipeline.execute()
