"""``banditmesh dead-letters``: the records that nobody could understand."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from banditmesh.runtime.errors import InvalidArgument, NotFound, PermissionDenied

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

    from banditmesh.contracts.events.v1.events_pb2 import DeadLetter
    from banditmesh.runtime.addresses import KafkaAddress

_DEADLINE_S = 30.0
_POLL_MS = 500


def dead_letters(
    kafka: Annotated[str, typer.Option(envvar="BANDITMESH_KAFKA", help="Bootstrap servers, host:port,…")],
    prefix: Annotated[str, typer.Option(help="kafka.topic_prefix of mesh.yaml.")] = "",
    last: Annotated[int, typer.Option(min=1, help="At most so many of each partition, the newest.")] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with the raw bytes in base64.")
    ] = False,
) -> None:
    """Show the [bold]dead letters[/]: which record, why, and its bytes."""
    from banditmesh.runtime.addresses import KafkaAddress, shown
    from banditmesh.runtime.kafka.topics import Topics
    from banditmesh.runtime.settings import UsesKafka, load_settings

    try:
        KafkaAddress.parse(kafka)
    except ValueError as error:
        raise InvalidArgument(f"--kafka {shown(kafka)}: {error}") from error
    address = load_settings(UsesKafka, {"kafka": kafka}).kafka
    letters = asyncio.run(_read(address, Topics.named(prefix).dead_letters, last))
    if as_json:
        for letter in letters:
            print(json.dumps(_row(letter)))
        return
    table = Table("record", "consumer", "reason", "detail", "bytes", header_style="bold")
    for letter in letters:
        where = f"{letter.topic}/{letter.partition}@{letter.offset}"
        table.add_row(where, letter.consumer, letter.reason, Text(letter.detail), str(len(letter.value)))
    console = Console()
    console.print(table if letters else "There are no dead letters.")


def _row(letter: DeadLetter) -> dict[str, object]:
    from google.protobuf import json_format

    row: dict[str, object] = json_format.MessageToDict(letter, preserving_proto_field_name=True)
    return row


async def _read(kafka: KafkaAddress, topic: str, last: int) -> list[DeadLetter]:
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.client import AIOKafkaClient

    from banditmesh.runtime.kafka.connect import answering, client_options, say_nothing
    from banditmesh.runtime.kafka.metadata import ask_topics

    say_nothing()
    client = AIOKafkaClient(**client_options(kafka))
    consumer = AIOKafkaConsumer(**client_options(kafka), group_id=None, enable_auto_commit=False)
    try:
        async with answering(kafka, _DEADLINE_S, "--kafka, BANDITMESH_KAFKA"):
            await client.bootstrap()
            # A consumer waits for ever for a topic that does not exist, or has it created.
            state = (await ask_topics(client, [topic])).get(topic)
            if state is not None and state.denied:
                raise PermissionDenied(f"this user may not read topic {topic!r} in Kafka at {kafka}")
            if state is None:
                raise NotFound(
                    f"there is no topic {topic!r} in Kafka at {kafka}",
                    hint="--prefix is kafka.topic_prefix of mesh.yaml; the services create the topic when they start",
                )
            await consumer.start()
            partitions = [TopicPartition(topic, number) for number in range(state.partitions)]
            return await _newest(consumer, partitions, last)
    finally:
        await consumer.stop()
        await client.close()


async def _newest(consumer: AIOKafkaConsumer, partitions: list[TopicPartition], last: int) -> list[DeadLetter]:
    """The last letters of each partition, up to where it ends now."""
    consumer.assign(partitions)
    begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    for partition in partitions:
        consumer.seek(partition, max(begins[partition], ends[partition] - last))
    letters: list[DeadLetter] = []
    while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
        batch = await consumer.getmany(timeout_ms=_POLL_MS)
        letters += [_letter(record) for records in batch.values() for record in records]
    return letters


def _letter(record: ConsumerRecord) -> DeadLetter:
    from google.protobuf.message import DecodeError

    from banditmesh.contracts.events.v1.events_pb2 import DeadLetter

    value = record.value or b""  # a tombstone has none
    try:
        if not value:
            raise DecodeError("it has no value")
        return DeadLetter.FromString(value)
    except DecodeError as error:  # somebody else wrote into the topic
        return DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            time_ms=record.timestamp,
            value=value,
            reason="no_dead_letter",
            detail=str(error),
        )
