"""What a transaction says when the broker refuses it; what a real broker does is in the integration tests."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    RecordListTooLargeError,
)

from banditmesh.runtime.errors import FailedPrecondition, MeshError, Unavailable
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.sizes import MessageSizes
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from banditmesh.runtime.stream import StartOver


class Batch:
    """As much of aiokafka's as is used."""

    def __init__(self, *records: int) -> None:
        self.records = list(records)

    def append(self, *, timestamp: object, key: bytes, value: bytes) -> object:
        self.records.append(len(key) + len(value))
        return self

    def size(self) -> int:
        return 61 + sum(self.records)

    def record_count(self) -> int:
        return len(self.records)


class RefusingKafka:
    """An aiokafka producer whose broker refuses each batch."""

    def __init__(self, error: KafkaError) -> None:
        self._error = error
        self._message_accumulator = SimpleNamespace(_batches={})

    async def begin_transaction(self) -> None:
        pass

    def create_batch(self) -> Any:
        return Batch()

    async def send_batch(self, batch: object, topic: str, partition: int) -> asyncio.Future[object]:
        refused: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        refused.set_exception(self._error)
        return refused


@pytest.mark.parametrize(
    ("error", "becomes", "says"),
    [
        (MessageSizeTooLargeError(), FailedPrecondition, "topic examples takes no message .*raise max.message.bytes"),
        (NotEnoughReplicasError(), Unavailable, "transaction of joiner-0: .*NotEnoughReplicas"),
    ],
)
async def test_a_topic_that_takes_no_messages_at_all_is_named_with_the_setting(
    error: KafkaError, becomes: type[MeshError], says: str
) -> None:
    transactions = TransactionalProducer(cast(Any, RefusingKafka(error)), "joiner-0", MessageSizes())
    with pytest.raises(becomes) as raised:
        await transactions.write([Record("examples", b"u", b"x", 0)])
    assert type(raised.value) is becomes
    assert re.search(says, f"{raised.value}; {raised.value.hint}")


async def test_a_message_that_is_too_large_opens_the_partition_anew_with_smaller_ones() -> None:
    sizes = MessageSizes()
    transactions = TransactionalProducer(cast(Any, RefusingKafka(RecordListTooLargeError())), "joiner-0", sizes)
    with pytest.raises(StartOver, match="topic examples takes no message of 4061 bytes"):
        await transactions.write([Record("examples", b"", bytes(2000), 0)] * 2)
    assert sizes.batch_bytes("examples") == 4061 // 2
    assert sizes.takes("examples", 4000)
