"""What a command ends with when a service or Kafka does not answer: who, where, why, and the setting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from banditmesh.demo.imports import ImportFailed, import_mappings
from banditmesh.demo.outcome import ExamplesReader
from banditmesh.demo.report import Examples
from banditmesh.demo.target import Target
from banditmesh.local import ports
from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.channels import failed_call
from banditmesh.runtime.errors import InvalidArgument, Unavailable
from banditmesh.runtime.kafka.connect import answering


def rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_call_without_an_answer_names_the_service_its_address_and_the_setting(code: grpc.StatusCode) -> None:
    error = failed_call(rpc_error(code, "no answer"), "engine", "host:1", "--engine")

    assert isinstance(error, Unavailable)
    assert str(error) == "the engine at host:1 does not answer: no answer; see --engine"


def test_a_call_that_was_refused_is_told_as_the_service_says_it() -> None:
    refused = InvalidArgument("user_id is empty", field="user_id", metadata={"request_id": "7"})

    assert failed_call(refused, "importer", "host:1", "--importer") is refused


def test_a_service_that_answers_that_something_else_is_away_is_not_called_away_itself() -> None:
    busy = Unavailable("Redis is away", metadata={"request_id": "7"})

    assert str(failed_call(busy, "importer", "host:1", "--importer")) == "the importer at host:1 answers: Redis is away"


async def test_kafka_that_hangs_is_given_up_and_named_with_the_setting() -> None:
    with pytest.raises(Unavailable) as given_up:
        async with answering("host:9092", 0.0, "--kafka"):
            await asyncio.Event().wait()

    assert str(given_up.value) == "Kafka at host:9092 did not answer within 0 s; see --kafka"


async def test_who_reads_examples_where_no_kafka_is_hears_so() -> None:
    away = KafkaAddress.parse(f"127.0.0.1:{ports.free(1)[0]}")

    with pytest.raises(Unavailable, match=rf"Kafka at {away} cannot be reached: .*; see BANDITMESH_KAFKA"):
        await ExamplesReader(away, "examples", Examples()).start()


async def test_mappings_that_cannot_be_imported_end_with_one_typed_error(tmp_path: Path) -> None:
    async def publish(path: Path) -> str:
        raise ImportFailed(f"{path.name} is refused")

    target = Target("h:1", "h:2", "h:3", KafkaAddress.parse("h:4"), publish)
    rows = {("genre", "new-for-favourite"): {"u": ["x"]}, ("taste", "similar-to-liked"): {"u": ["x"]}}

    with pytest.raises(ImportFailed, match="is refused"):
        await import_mappings(target, tmp_path, rows, "1", print)
