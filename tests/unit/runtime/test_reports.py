"""Positions that are shown to people, with a consumer that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError
from aiokafka.util import commit_structure_validate
from structlog.testing import capture_logs

from banditmesh.runtime.kafka.reports import Reports

ONE, OTHER = TopicPartition("reactions", 1), TopicPartition("reactions", 2)


class Consumer:
    """As much of aiokafka's as is used."""

    def __init__(self, *assigned: TopicPartition) -> None:
        self.assigned = frozenset(assigned)
        self.committed: list[Mapping[TopicPartition, Any]] = []

    def assignment(self) -> frozenset[TopicPartition]:
        return self.assigned

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed.append(commit_structure_validate(offsets))  # as aiokafka begins


async def reported(consumer: Consumer, *noted: TopicPartition) -> BaseException | None:
    reports = Reports(cast(Any, consumer))
    for at in noted:
        reports.note(at, 7)
    reports.send()
    (sending,) = [task for task in asyncio.all_tasks() if task.get_name() == "report positions"]
    await asyncio.wait([sending])
    return sending.exception()


async def test_what_is_assigned_is_reported() -> None:
    consumer = Consumer(ONE)
    assert await reported(consumer, ONE, OTHER) is None
    assert [list(each) for each in consumer.committed] == [[ONE]]


async def test_what_was_given_to_another_member_meanwhile_is_that_ones_and_no_error() -> None:
    consumer = Consumer(OTHER)
    assert await reported(consumer, ONE) is None
    assert consumer.committed == []


async def test_a_group_that_may_not_be_written_to_is_said_once_with_the_right_and_that_it_may_again() -> None:
    consumer = Consumer(ONE)
    reports = Reports(cast(Any, consumer))
    refused = [GroupAuthorizationFailedError("joiner-shown"), GroupAuthorizationFailedError("joiner-shown")]

    async def commit(offsets: dict[TopicPartition, int]) -> None:
        if refused:
            raise refused.pop()

    consumer.commit = commit  # type: ignore[method-assign]
    with capture_logs() as logs:
        for _ in range(3):
            reports.note(ONE, 7)
            await reports._commit()
    down, up = logs
    assert (down["event"], up["event"]) == ("dependency down", "dependency up")
    assert "lacks the right Read of group joiner-shown" in down["reason"]
