"""Writes the recommendation cache behind the answers: best effort, and never at the cost of one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.redis import RedisClient
from services.crs_engine.breaker import Breaker
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline import ranked
from services.crs_engine.pipeline.batch import Answered
from services.crs_engine.pipeline.rules.base import Rule

MOST_UNDER_WAY: Final = 4
"""Batches whose entries are being written at once; those of others are let go, and made again another time."""


class CacheKeeper:
    """Owns the writes that are under way."""

    def __init__(
        self,
        redis: RedisClient,
        breaker: Breaker,
        rules: Mapping[str, Mapping[str, Rule]],
        clock: Clock,
        metrics: EngineMetrics,
    ) -> None:
        """``rules``: by placement."""
        self._redis = redis
        self._rules = rules
        self._breaker = breaker
        self._clock = clock
        self._metrics = metrics
        self._under_way: set[asyncio.Task[None]] = set()

    def keep(self, answered: Answered) -> None:
        """Have the scores of a group's answer written, soon and beside whatever comes."""
        found = answered.cached
        if found is None:
            return
        placement = answered.slate.group.placement
        for result, count in found.results.items():
            self._metrics.cached.labels(placement.name, result).inc(count)
        missed = len(found.hits) - int(found.hits.sum())
        if not missed:
            return
        if len(self._under_way) >= MOST_UNDER_WAY:
            self._metrics.cache_unwritten.inc(missed)
            return
        task = asyncio.create_task(self._write(answered), name="recommendation cache")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _write(self, answered: Answered) -> None:
        await asyncio.sleep(0)  # the answer goes first
        placement = answered.slate.group.placement
        cache = placement.config.cache
        entries = dict(ranked.entries(answered.slate, self._rules[placement.name], self._clock.now_s()))
        if cache is None or not entries or not self._breaker.allows():
            return
        pipeline = self._redis.pipeline()
        for key, value in entries.items():
            pipeline.set(key, value, px=max(int(cache.max_age * 1000), 1))
        try:
            async with self._redis.guarded():
                await pipeline.execute()
        except Unavailable:  # the reads notice it by themselves
            self._metrics.cache_unwritten.inc(len(entries))

    async def close(self) -> None:
        """Let go of what is under way: it is made again."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
