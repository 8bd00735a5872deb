"""What a group has committed, as coordinators answer: also one that has just moved, or is still loading."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3

from banditmesh.runtime.kafka import committed as module
from banditmesh.runtime.kafka.committed import Committed, committed

AT = TopicPartition("impressions", 3)


def answer(*partitions: tuple[int, int, str | None, int], error: type[KafkaError] | None = None) -> Any:
    """As version 3 has it: partition, offset, text, error; and the error of the whole."""
    topics = [("impressions", list(partitions))] if partitions else []
    return OffsetFetchResponse_v3(0, topics, 0 if error is None else error.errno)


class Coordinator:
    """As much of aiokafka's as is used; answers in the order given."""

    group_id = "joiner-impressions"

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.found_dead = 0

    async def ensure_coordinator_known(self) -> None:
        pass

    def coordinator_dead(self) -> None:
        self.found_dead += 1

    async def _send_req(self, request: object) -> Any:
        following = self._answers.pop(0)
        if isinstance(following, Exception):
            raise following
        return following


def ask(*answers: Any) -> tuple[Committed | None, Coordinator]:
    coordinator = Coordinator(*answers)
    return asyncio.run(committed(cast(Any, coordinator), AT)), coordinator


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_AFTER_S", 0)


def test_an_offset_comes_with_its_text() -> None:
    assert ask(answer((3, 1679, "17", 0)))[0] == Committed(1679, "17")


def test_nothing_is_what_the_coordinator_says_of_the_partition() -> None:
    assert ask(answer((3, -1, "", 0)))[0] is None


def test_an_old_broker_has_no_error_for_the_whole() -> None:
    assert ask(OffsetFetchResponse_v1([("impressions", [(3, 5, None, 0)])]))[0] == Committed(5, "")


@pytest.mark.parametrize(
    ("error", "found_dead"),
    [(NotCoordinatorForGroupError, 1), (GroupCoordinatorNotAvailableError, 1), (GroupLoadInProgressError, 0)],
)
def test_an_error_of_the_whole_answer_is_not_nothing(error: type[KafkaError], found_dead: int) -> None:
    found, coordinator = ask(answer(error=error), answer((3, 1679, "", 0)))
    assert found == Committed(1679, "")
    assert coordinator.found_dead == found_dead


@pytest.mark.parametrize("error", [GroupLoadInProgressError, NotCoordinatorForGroupError, UnknownTopicOrPartitionError])
def test_an_error_of_the_partition_is_not_nothing(error: type[KafkaError]) -> None:
    assert ask(answer((3, -1, "", error.errno)), answer((3, 7, "", 0)))[0] == Committed(7, "")


def test_it_asks_again_when_the_connection_breaks() -> None:
    assert ask(GroupCoordinatorNotAvailableError(), answer((3, 7, "", 0)))[0] == Committed(7, "")


def test_what_does_not_pass_is_raised() -> None:
    with pytest.raises(GroupAuthorizationFailedError):
        ask(answer(error=GroupAuthorizationFailedError))


def test_an_answer_without_the_partition_is_not_nothing() -> None:
    with pytest.raises(KafkaError, match="did not answer for"):
        ask(answer((2, 7, "", 0)))
