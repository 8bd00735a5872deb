"""Structured logs: one JSON object a line (or coloured text on a terminal), the libraries' own logging included.

``get_logger(__name__).info("snapshot loaded", model=name, version=3)``: the event is a constant text, what varies is a
field. The id of the gRPC request being answered is added by itself. Tokens, secrets and bodies are cut out whatever a
call passes.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO

import structlog
from google.protobuf.message import Message
from pydantic import SecretStr

from banditmesh.runtime.outages import outages
from banditmesh.runtime.settings import LogFormat, LogLevel

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the gRPC request that the current task answers; empty in background tasks."""

HIDDEN_FIELDS = frozenset({"authorization", "body", "password", "payload", "secret", "token", "token_keys", "tokens"})
CHATTY_LOGGERS: Mapping[str, int] = {
    # At debug level they print requests with their Authorization header.
    "boto3": logging.INFO,
    "botocore": logging.INFO,
    "s3transfer": logging.INFO,
    "urllib3": logging.INFO,
    # One line a poll, at debug.
    "aiokafka": logging.INFO,
    # A line for each producer that opens: a joiner opens one with each attempt at a partition while Redis is away.
    "aiokafka.producer.sender": logging.WARNING,
    "asyncio": logging.INFO,
    "grpc": logging.INFO,
}


class _GoneClients(logging.Filter):
    """Drops what grpc.aio 1.85 logs as an error, with a traceback, when a client has gone before its answer: that is
    everyday life, and counted as CANCELLED or DEADLINE_EXCEEDED."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.msg, str) and record.msg.startswith("ExecuteBatchError raised in core"))


_GONE_CLIENTS = _GoneClients()
REPEATED_FIRST_S, REPEATED_MOST_S = 60.0, 3600.0
LASTED_S = 5.0
_MOST_LINES = 256
_OF_AN_OUTAGE = (
    "Attempt to fetch offsets ",
    "Cannot send ",
    "Could not send ",
    "Discovered coordinator ",
    "Error sending ",
    "Failed fetch ",
    "FindCoordinator Request failed",
    "Got error produce response",
    "Group Coordinator Request failed",
    "Heartbeat ",
    "LeaveGroup request failed",
    "Marking the coordinator dead",
    "Not authorized to read from topic ",
    "OffsetCommit failed ",
    "Topic %s is not authorized",
    "Unable ",
)
"""How lines of aiokafka 0.14 begin that say that a broker is away."""


@dataclass
class _Line:
    first_s: float
    last_s: float
    shown_s: float | None = None
    pause_s: float = REPEATED_FIRST_S
    left_out: int = 0


class Repeated(logging.Filter):
    """Lets a line of a library through once in a while, further and further apart, with how many like it were left out
    since the last.

    While its broker is away, aiokafka 0.14 logs each attempt of each connection as an error, a hundred a second. What
    it says then we say ourselves, once (:mod:`banditmesh.runtime.outages`): such a line is let through only when it
    goes on though we know of no outage, as one of several brokers may be away, or have the wrong name.
    """

    def __init__(
        self,
        now_s: Callable[[], float] = time.monotonic,
        is_down: Callable[[str], bool] = outages.is_down,
    ) -> None:
        super().__init__()
        self._now_s = now_s
        self._is_down = is_down
        self._lines: dict[tuple[str, str], _Line] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """What only differs in what is filled in is one line."""
        if not record.name.startswith(tuple(CHATTY_LOGGERS)) or record.exc_info:
            return True
        key, now_s = (record.name, str(record.msg)), self._now_s()
        line = self._lines.get(key)
        if line is None or now_s - line.last_s > 2 * line.pause_s:
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            line = self._lines[key] = _Line(now_s, now_s)
        of_an_outage = key[1].startswith(_OF_AN_OUTAGE)
        if of_an_outage and now_s - line.last_s > LASTED_S:
            line.first_s = now_s  # another one
        line.last_s = now_s
        if of_an_outage and (now_s - line.first_s < LASTED_S or self._is_down("kafka")):
            line.left_out += 1
            return False
        if line.shown_s is not None and now_s - line.shown_s < line.pause_s:
            line.left_out += 1
            return False
        if line.left_out:
            since_s = now_s - (line.first_s if line.shown_s is None else line.shown_s)
            record.msg = f"{record.msg} ({line.left_out} more like it in the last {since_s:.0f} s)"
        if line.shown_s is not None:
            line.pause_s = min(2 * line.pause_s, REPEATED_MOST_S)
        line.shown_s, line.left_out = now_s, 0
        return True


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; ``name`` is its ``__name__``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def configure_logging(
    service: str, *, level: LogLevel = "info", style: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Route structlog and stdlib logging to one handler on ``stream`` (stderr). Call once, before anything logs."""
    stream = stream if stream is not None else sys.stderr
    json_lines = style == "json" or (style == "auto" and not stream.isatty())

    def add_context(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        if current := request_id.get():
            event.setdefault("request_id", current)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        add_context,
        hide_secrets,
    ]
    # The plain traceback: structlog's own ones print local variables, and with them tokens.
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if json_lines
        else [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, timestamp_key="time"
            )
        ]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    handler.addFilter(Repeated())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, floor in CHATTY_LOGGERS.items():
        logging.getLogger(name).setLevel(max(floor, root.level))
    logging.getLogger("grpc._cython.cygrpc").addFilter(_GONE_CLIENTS)
    logging.captureWarnings(True)


def hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: a field named like a secret, and any bytes or protobuf message, is shown by its size alone."""
    for name, value in event.items():
        if isinstance(value, (bytes, bytearray, memoryview)):
            event[name] = f"<{len(value)} bytes>"
        elif isinstance(value, Message):
            event[name] = f"<{value.DESCRIPTOR.full_name}, {value.ByteSize()} bytes>"
        elif isinstance(value, SecretStr) or (name.lower() in HIDDEN_FIELDS and value is not None):
            event[name] = "<hidden>"
    return event
