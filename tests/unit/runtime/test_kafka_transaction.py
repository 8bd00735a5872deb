"""What a transaction says when the broker refuses it; what a real broker does is in the integration tests."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, NotEnoughReplicasError

from banditmesh.runtime.errors import FailedPrecondition, MeshError, Unavailable
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.transaction import TransactionalProducer


class RefusingKafka:
    """An aiokafka producer whose broker refuses each batch."""

    def __init__(self, error: KafkaError) -> None:
        self._error = error
        self._message_accumulator = SimpleNamespace(_batches={})

    async def begin_transaction(self) -> None:
        pass

    def create_batch(self) -> Any:
        return SimpleNamespace(append=lambda **record: record)

    async def send_batch(self, batch: object, topic: str, partition: int) -> asyncio.Future[object]:
        refused: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        refused.set_exception(self._error)
        return refused


@pytest.mark.parametrize(
    ("error", "becomes", "says"),
    [
        (
            MessageSizeTooLargeError(),
            FailedPrecondition,
            "to examples: .*set max.message.bytes of the topic to at least",
        ),
        (NotEnoughReplicasError(), Unavailable, "transaction of joiner-0: .*NotEnoughReplicas"),
    ],
)
async def test_a_topic_that_takes_no_messages_of_our_size_is_named_with_the_setting(
    error: KafkaError, becomes: type[MeshError], says: str
) -> None:
    transactions = TransactionalProducer(cast(Any, RefusingKafka(error)), "joiner-0")
    with pytest.raises(becomes) as raised:
        await transactions.write([Record("examples", b"u", b"x", 0)])
    assert type(raised.value) is becomes
    assert re.search(says, f"{raised.value}; {raised.value.hint}")
