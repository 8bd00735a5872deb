"""The bare client: what aiokafka itself does on the core that a service had. ``python -m benchmarks.stream.bare``."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.stream.stage import PARTITIONS, impressions

AT_ONCE = 500


async def produce(kafka: str, topic: str, count: int) -> dict[str, float]:
    """Idempotent, ``acks=all``, one ``send`` an event, in groups of 500 whose acknowledgements are awaited together."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True, linger_ms=0)
    values = impressions(count)
    await producer.start()
    try:
        began, cpu = time.monotonic(), time.process_time()
        running: set[asyncio.Task[object]] = set()

        async def group(part: list[tuple[bytes, bytes]]) -> None:
            await asyncio.gather(*[await producer.send(topic, value, key) for key, value in part])

        for at in range(0, count, AT_ONCE):
            running.add(asyncio.create_task(group(values[at : at + AT_ONCE])))
            if len(running) >= 16:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*running)
        took, spent = time.monotonic() - began, time.process_time() - cpu
    finally:
        await producer.stop()
    return {"per_second": count / took, "cpu_us": 1e6 * spent / count}


async def consume_produce(kafka: str, topic: str, out: str, count: int) -> dict[str, float]:
    """Read records, write the same bytes in transactions of 500 with the offsets behind them."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=f"{out}-bare", enable_auto_commit=False)
    await consumer.start()
    producers: dict[int, AIOKafkaProducer] = {}
    try:
        partitions = [TopicPartition(topic, each) for each in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        for at in partitions:
            producers[at.partition] = AIOKafkaProducer(
                bootstrap_servers=kafka, transactional_id=f"{out}-bare-{at.partition}", max_batch_size=128 * 1024
            )
            await producers[at.partition].start()
        began, cpu, done = time.monotonic(), time.process_time(), 0

        async def one(at: TopicPartition, records: list[object]) -> None:
            producer = producers[at.partition]
            async with producer.transaction():
                batch, sent = producer.create_batch(), []
                for record in records:
                    fits = batch.append(key=record.key, value=record.value, timestamp=None)  # type: ignore[attr-defined]
                    if fits is None:
                        sent.append(await producer.send_batch(batch, out, partition=at.partition))
                        batch = producer.create_batch()
                        batch.append(key=record.key, value=record.value, timestamp=None)  # type: ignore[attr-defined]
                sent.append(await producer.send_batch(batch, out, partition=at.partition))
                await asyncio.gather(*sent)
                offset = records[-1].offset + 1  # type: ignore[attr-defined]
                await producer.send_offsets_to_transaction({at: offset}, f"{out}-bare")

        while done < count:
            fetched = await consumer.getmany(timeout_ms=1000, max_records=AT_ONCE * PARTITIONS)
            for at, records in fetched.items():
                for first in range(0, len(records), AT_ONCE):
                    await one(at, records[first : first + AT_ONCE])
                done += len(records)
        took, spent = time.monotonic() - began, time.process_time() - cpu
    finally:
        await consumer.stop()
        for producer in producers.values():
            await producer.stop()
    return {"per_second": count / took, "cpu_us": 1e6 * spent / count}


def main() -> None:
    """One line of JSON."""
    what, kafka, *arguments = sys.argv[1:]
    if what == "produce":
        figures = uvloop.run(produce(kafka, arguments[0], int(arguments[1])))
    else:
        figures = uvloop.run(consume_produce(kafka, arguments[0], arguments[1], int(arguments[2])))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
