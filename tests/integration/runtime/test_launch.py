"""A service as an operator runs it: a command line, an environment, signals and an exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

SERVICE = """
import asyncio, sys
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.launch import service_main
from banditmesh.runtime.lifecycle import EndProcess
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.settings import ServiceSettings, UsesKafka

log = get_logger("service")

class Settings(ServiceSettings, UsesKafka):
    pass

async def bootstrap(settings, server):
    async def close():
        log.info("closed")
    server.on_stop("client", close)
    mode = str(settings.config)
    if mode == "unavailable":
        raise Unavailable("redis does not answer", hint="start it")
    if mode == "bug":
        raise KeyError("oops")
    if mode == "hang":
        log.info("hanging")
        await asyncio.Event().wait()
    if mode == "crash":
        async def crash():
            raise RuntimeError("lost state")
        server.background("loop", crash, on_crash=EndProcess())

sys.exit(service_main("event-tracker", Settings, bootstrap, description="Takes events."))
"""


@asynccontextmanager
async def service(*arguments: str, **variables: str) -> AsyncIterator[Process]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BANDITMESH_")}
    environ |= {"BANDITMESH_GRPC_ADDRESS": "127.0.0.1:0", "BANDITMESH_METRICS_PORT": "0"}
    environ |= {"BANDITMESH_METRICS_HOST": "127.0.0.1", "BANDITMESH_KAFKA": "127.0.0.1:9092"} | variables
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, *arguments, env=environ, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def logged(process: Process, event: str) -> dict[str, Any]:
    assert process.stderr is not None
    async for line in process.stderr:
        entry: dict[str, Any] = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"the service ended without {event!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_service_in_order_with_exit_code_0(number: signal.Signals) -> None:
    async with service() as process:
        serving = await logged(process, "serving")
        assert serving["service"] == "event-tracker"
        process.send_signal(number)
        await logged(process, "closed")
        assert await process.wait() == 0


async def test_a_signal_during_the_start_stops_it_too() -> None:
    async with service("--config", "hang") as process:
        await logged(process, "hanging")
        process.send_signal(signal.SIGTERM)
        await logged(process, "closed")
        assert await process.wait() == 0


async def test_wrong_settings_are_one_message_and_exit_code_2() -> None:
    async with service(BANDITMESH_KAFKA="nowhere", BANDITMESH_LOG_LEVEL="loud") as process:
        _, text = await process.communicate()
    assert process.returncode == 2
    assert b"BANDITMESH_KAFKA = 'nowhere': expected host:port" in text
    assert b"BANDITMESH_LOG_LEVEL = 'loud'" in text
    assert b"Traceback" not in text


async def test_a_dependency_that_is_away_at_the_start_is_exit_code_1_without_a_traceback() -> None:
    async with service("--config", "unavailable") as process:
        _, text = await process.communicate()
    assert process.returncode == 1
    assert b"event-tracker: redis does not answer; start it" in text
    assert b"Traceback" not in text
    assert b"closed" in text


async def test_a_bug_at_the_start_is_logged_once_and_exit_code_1() -> None:
    async with service("--config", "bug") as process:
        entry = await logged(process, "the start failed")
        assert "KeyError" in entry["exception"]
        await logged(process, "closed")
        assert await process.wait() == 1


async def test_a_task_that_may_not_crash_ends_the_process_with_exit_code_1() -> None:
    async with service("--config", "crash") as process:
        await logged(process, "closed")
        assert await process.wait() == 1


async def test_a_misspelt_variable_is_a_warning() -> None:
    async with service(BANDITMESH_GRPC_ADRESS="x") as process:
        warning = await logged(process, "unknown environment variable: a typing error?")
        assert warning["variable"] == "BANDITMESH_GRPC_ADRESS"
        await logged(process, "serving")


async def test_help_teaches_every_variable() -> None:
    async with service("--help") as process:
        text, _ = await process.communicate()
    assert process.returncode == 0
    for name in (b"python -m services.event_tracker", b"BANDITMESH_KAFKA (required)", b"--config", b"exit codes"):
        assert name in text
