"""Ends a producer that is not to be waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerClosed

_DISCARD_S = 2.0


async def discard(kafka: AIOKafkaProducer, reason: str = "thrown away") -> None:
    """Close a producer without a flush; whatever it still holds fails with ProducerClosed.

    aiokafka 0.14 has no such method: ``stop()`` waits for the flush, while Kafka is away for ever, and when that is
    cancelled it leaves a sender behind that goes on retrying. Hence the private attributes.
    """
    client, sender = kafka.client, kafka._sender.sender_task
    if sender is not None:
        sender.cancel()  # it still waits for its requests in flight:
    await client.close()  # ends those,
    nothing_comes: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    nothing_comes.set_result(False)
    client._md_update_fut = nothing_comes  # and this the wait for metadata that the retry of each of them begins with.
    if sender is not None and not (await asyncio.wait([sender], timeout=_DISCARD_S))[0]:
        # What it still waits for looks for a coordinator through a client that is closed, for ever. A second
        # cancellation reaches that; left to `stop`, it would come out of `stop` as if we were cancelled.
        sender.cancel()
        await asyncio.wait([sender], timeout=_DISCARD_S)
    transactions = kafka._txn_manager
    if transactions is not None and transactions._transaction_waiter is not None:
        transactions._transaction_waiter.add_done_callback(note_exception)
    accumulator = kafka._message_accumulator
    for batches in accumulator._batches.values():
        # The callback of a batch that was sent before removes it from there, and fails when it is not; and asyncio
        # would log the exception of a drain waiter that nobody waits for.
        accumulator._pending_batches.update(batches)
        for batch in batches:
            batch.drain_ready()
    accumulator.fail_all(ProducerClosed(reason))
    await kafka.stop()


def note_exception(future: asyncio.Future[Any]) -> None:
    """Nobody may be left to look at it; asyncio would log that."""
    if not future.cancelled():
        future.exception()
