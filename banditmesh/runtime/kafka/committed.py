"""What a consumer group has committed, and never "nothing" where the coordinator has not said so.

aiokafka 0.14 reads a partition's error out of an answer and passes over the one of the answer as a whole. A coordinator
that has just moved, or is still loading, answers with that error and without partitions, which then looks as if nothing
had ever been committed: the partition would be read from its beginning, and all of it come out twice.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest

_AGAIN_AFTER_S: Final = 0.1
_NOTHING: Final = -1


class Committed(NamedTuple):
    """An offset, and the text that was committed with it."""

    offset: int
    text: str


async def committed(coordinator: GroupCoordinator, at: TopicPartition) -> Committed | None:
    """What the group has committed for a partition; None: the coordinator says that it is nothing.

    Asks again, and for the coordinator anew, for as long as the answer is an error that passes; the caller limits the
    time. Raises KafkaError: any other error, or an answer that does not speak of the partition.
    """
    while True:
        try:
            await coordinator.ensure_coordinator_known()
            return await _ask(coordinator, at)
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            coordinator.coordinator_dead()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(_AGAIN_AFTER_S)


async def _ask(coordinator: GroupCoordinator, at: TopicPartition) -> Committed | None:
    answer = await coordinator._send_req(OffsetFetchRequest(coordinator.group_id, [(at.topic, [at.partition])]))
    codes = [getattr(answer, "error_code", 0)]  # version 1 has none for the whole
    found: tuple[int, str] | None = None
    for topic, partitions in answer.topics:
        for partition, offset, text, code in partitions:
            if (topic, partition) == at:
                codes.append(code)
                found = offset, text or ""
    for code in codes:
        if code:
            raise for_code(code)(coordinator.group_id)
    if found is None:
        raise KafkaError(f"the coordinator of group {coordinator.group_id} did not answer for {at}")
    return None if found[0] == _NOTHING else Committed(*found)
