"""Throwing a producer away that is in the middle of something."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer

from banditmesh.runtime.kafka.discard import discard


class Stuck:
    """As aiokafka 0.14 is while Kafka is away: its sender, once cancelled, waits for a task that looks for a
    coordinator, and ``stop`` cancels it again and awaits it."""

    def __init__(self) -> None:
        self.looking = asyncio.create_task(asyncio.Event().wait())
        self._sender = SimpleNamespace(sender_task=asyncio.create_task(self._send()))
        self.client = SimpleNamespace(close=self._close, _md_update_fut=None)
        self._txn_manager = None
        self._message_accumulator = SimpleNamespace(_batches={}, _pending_batches=set(), fail_all=lambda error: None)

    async def _send(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self.looking

    async def _close(self) -> None:
        pass

    async def stop(self) -> None:
        sender = self._sender.sender_task
        if not sender.done():
            sender.cancel()
            await sender


async def test_a_producer_that_waits_for_ever_is_thrown_away_and_cancels_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("banditmesh.runtime.kafka.discard._DISCARD_S", 0.01)
    stuck = Stuck()
    await asyncio.sleep(0)
    await discard(cast(AIOKafkaProducer, cast(Any, stuck)))
    assert stuck._sender.sender_task.done()
    assert stuck.looking.done()
