"""``banditmesh dead-letters``: the records that nobody could understand."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

_IDLE_S = 1.0


def dead_letters(
    kafka: Annotated[str, typer.Option(envvar="BANDITMESH_KAFKA", help="Bootstrap servers, host:port,…")],
    prefix: Annotated[str, typer.Option(help="kafka.topic_prefix of mesh.yaml.")] = "",
    last: Annotated[int, typer.Option(min=1, help="At most so many of each partition, the newest.")] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with the raw bytes in base64.")
    ] = False,
) -> None:
    """Show the [bold]dead letters[/]: which record, why, and its bytes."""
    from banditmesh.contracts.events.v1 import events_pb2
    from banditmesh.runtime.kafka.topics import Topics

    letters: list[events_pb2.DeadLetter] = asyncio.run(_read(kafka, Topics.named(prefix).dead_letters, last))
    if as_json:
        for letter in letters:
            print(json.dumps(_row(letter)))
        return
    table = Table("record", "consumer", "reason", "detail", "bytes", header_style="bold")
    for letter in letters:
        where = f"{letter.topic}/{letter.partition}@{letter.offset}"
        table.add_row(where, letter.consumer, letter.reason, letter.detail, str(len(letter.value)))
    console = Console()
    console.print(table if letters else "There are no dead letters.")


def _row(letter: object) -> dict[str, object]:
    from google.protobuf import json_format

    from banditmesh.contracts.events.v1 import events_pb2

    assert isinstance(letter, events_pb2.DeadLetter)
    row: dict[str, object] = json_format.MessageToDict(letter, preserving_proto_field_name=True)
    return row | {"value": base64.b64encode(letter.value).decode()}


async def _read(kafka: str, topic: str, last: int) -> list:  # type: ignore[type-arg]
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    from banditmesh.contracts.events.v1 import events_pb2
    from banditmesh.runtime.errors import Unavailable

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, group_id=None, enable_auto_commit=False)
    try:
        await consumer.start()
    except (KafkaError, OSError) as error:
        raise Unavailable(f"Kafka at {kafka} does not answer: {error}", field="kafka", value=kafka) from error
    try:
        partitions = sorted(consumer.assignment(), key=lambda each: each.partition)
        ends = await consumer.end_offsets(partitions)
        begins = await consumer.beginning_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, max(begins[partition], ends[partition] - last))
        letters: list[events_pb2.DeadLetter] = []
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            batch = await consumer.getmany(timeout_ms=int(1000 * _IDLE_S))
            letters += [
                events_pb2.DeadLetter.FromString(record.value) for records in batch.values() for record in records
            ]
        return letters
    finally:
        await consumer.stop()
