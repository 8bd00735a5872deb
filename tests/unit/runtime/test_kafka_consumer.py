"""A consumer that gets no answers any more is given up for another one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka import consumer
from banditmesh.runtime.kafka.consumer import KafkaSource


async def test_a_consumer_that_gets_no_answers_is_given_up_and_one_that_does_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer, "_CALL_S", 0.01)
    source = KafkaSource("127.0.0.1:1", "reactions", "joiner", client_id="joiner")

    async def silence(partitions: Any) -> Any:
        await asyncio.Event().wait()

    async def answer(partitions: Any) -> Any:
        return {TopicPartition("reactions", 0): 7}

    async def nothing(timeout_ms: int) -> Any:
        return {}

    monkeypatch.setattr(source._consumer, "getmany", nothing)
    monkeypatch.setattr(source._consumer, "beginning_offsets", silence)
    with pytest.raises(Unavailable, match="cannot read the beginning: no answer in time"):
        await source.beginning(0)
    assert await source.fetch(0.0) == {}
    monkeypatch.setattr(consumer, "_UNANSWERED_S", 0.0)
    with pytest.raises(Unavailable, match="cannot read the beginning: no answer in time"):
        await source.beginning(0)
    with pytest.raises(Unavailable, match="cannot read any offset for 0 s"):
        await source.fetch(0.0)
    monkeypatch.setattr(source._consumer, "beginning_offsets", answer)
    assert await source.beginning(0) == 7
    assert await source.fetch(0.0) == {}
    await source._consumer.stop()
