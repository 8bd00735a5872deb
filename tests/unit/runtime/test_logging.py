"""Logs as machines read them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from banditmesh.runtime.logging import Repeated, configure_logging, get_logger, request_id
from tests.support.logs import logging_as_it_was


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with logging_as_it_was():
        yield io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_service_level_and_time(stream: io.StringIO) -> None:
    configure_logging("tracker", style="json", stream=stream)
    get_logger("banditmesh.x").info("snapshot loaded", version=3)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "snapshot loaded",
        "level": "info",
        "logger": "banditmesh.x",
        "service": "tracker",
        "version": 3,
    }


def test_what_is_no_terminal_gets_json_by_itself(stream: io.StringIO) -> None:
    configure_logging("tracker", stream=stream)
    get_logger("x").info("hello")
    assert lines(stream)[0]["event"] == "hello"


def test_a_console_gets_text(stream: io.StringIO) -> None:
    configure_logging("tracker", style="console", stream=stream)
    get_logger("x").info("hello", n=1)
    assert "hello" in stream.getvalue()
    assert "n=1" in stream.getvalue()


def test_the_request_being_answered_is_named(stream: io.StringIO) -> None:
    configure_logging("tracker", style="json", stream=stream)
    token = request_id.set("r-1")
    get_logger("x").info("inside")
    request_id.reset(token)
    get_logger("x").info("outside")
    inside, outside = lines(stream)
    assert inside["request_id"] == "r-1"
    assert "request_id" not in outside


def test_the_libraries_logs_take_the_same_way(stream: io.StringIO) -> None:
    configure_logging("tracker", style="json", stream=stream)
    logging.getLogger("aiokafka.consumer").warning("lost %s", "partition")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["service"]) == ("lost partition", "aiokafka.consumer", "tracker")


def test_a_level_cuts_off_what_is_below_for_both_kinds(stream: io.StringIO) -> None:
    configure_logging("tracker", level="warning", style="json", stream=stream)
    get_logger("x").info("quiet")
    logging.getLogger("y").info("quiet")
    assert lines(stream) == []


def test_requests_with_credentials_are_not_logged_even_at_debug(stream: io.StringIO) -> None:
    configure_logging("tracker", level="debug", style="json", stream=stream)
    logging.getLogger("botocore.auth").debug("Authorization: AWS4-HMAC-SHA256 ...")
    get_logger("x").debug("ours")
    assert [line["event"] for line in lines(stream)] == ["ours"]


def test_tokens_and_bodies_are_shown_by_their_size_alone(stream: io.StringIO) -> None:
    configure_logging("tracker", style="json", stream=stream)
    get_logger("x").info(
        "event refused", token="c2VjcmV0", Password="p", record=b"12345", request=StringValue(value="secret")
    )
    (line,) = lines(stream)
    assert line["token"] == "<hidden>"
    assert line["Password"] == "<hidden>"
    assert line["record"] == "<5 bytes>"
    assert line["request"] == "<google.protobuf.StringValue, 8 bytes>"


def test_a_traceback_is_a_field_and_shows_no_local_variables(stream: io.StringIO) -> None:
    configure_logging("tracker", style="json", stream=stream)

    def fail() -> None:
        password = "hunter2"
        raise ValueError(f"{len(password)} characters")

    try:
        fail()
    except ValueError:
        get_logger("x").exception("crashed")
    (line,) = lines(stream)
    assert "ValueError: 7 characters" in line["exception"]
    assert "hunter2" not in line["exception"]


class Library:
    """What of a library's lines is shown, at a time that the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.down = False
        self.filtered = Repeated(lambda: self.now_s, lambda dependency: self.down)

    def shown(self, name: str, message: str, *args: object) -> str | None:
        record = logging.LogRecord(name, logging.ERROR, "", 1, message, args, None)
        return record.getMessage() if self.filtered.filter(record) else None


def test_a_library_that_repeats_itself_is_shown_once_in_a_while_and_counted() -> None:
    library = Library()
    shown = library.shown
    assert shown("aiokafka.conn", "Not authorized to read from %s", 1) == "Not authorized to read from 1"
    assert [shown("aiokafka.conn", "Not authorized to read from %s", topic) for topic in (1, 2, 3)] == [None] * 3
    assert shown("aiokafka.conn", "Metadata has changed") is not None
    assert [shown("services.joiner", "dead letter") for _ in range(2)] == ["dead letter"] * 2
    library.now_s = 61.0
    said = "Not authorized to read from 2 (3 more like it in the last 61 s)"
    assert shown("aiokafka.conn", "Not authorized to read from %s", 2) == said
    library.now_s = 150.0
    assert shown("aiokafka.conn", "Not authorized to read from %s", 2) is None
    library.now_s = 182.0
    assert shown("aiokafka.conn", "Not authorized to read from %s", 2) is not None
    for number in range(1000):
        shown("aiokafka.conn", f"a text of its own: {number}")
    assert len(library.filtered._lines) <= 256


def test_a_library_says_nothing_of_an_outage_that_we_tell_ourselves() -> None:
    library = Library()
    told = []
    for tenth in range(600):
        library.now_s = tenth / 10
        library.down = tenth > 20  # a health check has to find out first
        told.append(library.shown("aiokafka", "Unable connect to node with id %s: %s", 1, "refused"))
        told.append(library.shown("aiokafka.consumer.fetcher", "Failed fetch messages from %s: %s", 1, "not ready"))
    assert told == [None] * 1200


def test_a_library_says_that_one_of_several_brokers_is_away_for_longer() -> None:
    library = Library()
    told = {}
    for second in range(120):
        library.now_s = float(second)
        if said := library.shown("aiokafka", "Unable connect to node with id %s: %s", 3, "refused"):
            told[second] = said
    assert told == {
        5: "Unable connect to node with id 3: refused (5 more like it in the last 5 s)",
        65: "Unable connect to node with id 3: refused (59 more like it in the last 60 s)",
    }


def test_producers_that_come_and_go_are_no_news(stream: io.StringIO) -> None:
    configure_logging("joiner", style="json", stream=stream)
    sender = logging.getLogger("aiokafka.producer.sender")
    sender.info("Discovered coordinator %s for transactional id %s", 1, "joiner-impressions-0")
    sender.warning("Not authorized to write")
    assert [line["event"] for line in lines(stream)] == ["Not authorized to write"]
