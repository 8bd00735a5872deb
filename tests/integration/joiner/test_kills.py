"""Joiner processes that are killed in the middle of their work: every impression still becomes exactly one example."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from tests.integration.joiner.harness import World, by_impression, click, decision, joined, joiner_process, world

N = 2000
CHUNK = 100
WINDOW_MS = 1000


@pytest.fixture
async def mesh(kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path, partitions=4) as here:
        yield here


async def test_three_kills_of_two_joiners_lose_nothing_and_repeat_nothing(mesh: World, tmp_path: Path) -> None:
    shown_at: dict[int, int] = {}
    clicked_at: dict[int, int] = {}

    async def traffic(first: int, last: int) -> None:
        for start in range(first, last, CHUNK):
            shown = [decision(i) for i in range(start, start + CHUNK)]
            for number, acked in zip(range(start, start + CHUNK), await mesh.show(*shown), strict=True):
                shown_at[number] = acked.timestamp_ms
            for number, acked in zip(
                range(start, start + CHUNK, 3), await mesh.react(*map(click, shown[::3])), strict=True
            ):
                clicked_at[number] = acked.timestamp_ms

    async def written(n: int) -> None:
        await mesh.read(mesh.topics.examples, lambda got: len(joined(got)) >= n)

    with (
        joiner_process(mesh, tmp_path / "a.log") as first,
        joiner_process(mesh, tmp_path / "b.log") as second,
    ):
        await traffic(0, 600)
        await written(100)
        sending = asyncio.create_task(traffic(600, 1200))
        first.kill()
        with joiner_process(mesh, tmp_path / "c.log") as third:
            await sending
            await written(700)
            sending = asyncio.create_task(traffic(1200, N))
            second.kill()
            third.kill()
            with joiner_process(mesh, tmp_path / "d.log"):
                await sending
                examples = await mesh.examples(N)
                await mesh.ticks_after(mesh.topics.examples)
                examples = await mesh.examples(N)
    found = by_impression(examples)
    assert found.keys() == shown_at.keys()
    belong = {number for number, time in clicked_at.items() if time <= shown_at[number] + WINDOW_MS}
    assert {number for number, each in found.items() if each.outcome == events_pb2.OUTCOME_CLICK} == belong
    records = await mesh.records([f"user-{number}" for number in range(N)])
    assert records.shown.tolist() == [1] * N
    assert np.flatnonzero(records.clicks).tolist() == sorted(clicked_at)
    assert records.clicks.max() == 1


async def test_a_joiner_that_is_asked_to_stop_finishes_leaves_and_the_next_one_goes_on(
    mesh: World, tmp_path: Path
) -> None:
    shown = [decision(i) for i in range(200)]
    with joiner_process(mesh, tmp_path / "first.log", session_s=60) as first:
        await mesh.show(*shown[:100])
        await mesh.examples(50)
        await mesh.show(*shown[100:])
        assert await asyncio.to_thread(first.stop) == 0
    with joiner_process(mesh, tmp_path / "second.log"):
        await mesh.examples(200, deadline_s=40.0)  # sooner than the session of a dead one would end
        await mesh.ticks_after(mesh.topics.examples)
        assert by_impression(await mesh.examples(200)).keys() == set(range(200))
