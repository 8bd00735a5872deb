"""The metrics endpoint: what it serves, and that strangers cannot tie it up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry, Gauge

from banditmesh.runtime import exporter
from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.exporter import MAX_CONNECTIONS, MetricsServer
from tests.support.eventually import eventually_so


@asynccontextmanager
async def serving(*broken: str) -> AsyncIterator[MetricsServer]:
    registry = CollectorRegistry()
    Gauge("banditmesh_answer", "The answer", registry=registry).set(42)
    server = MetricsServer(registry, lambda: broken)
    await server.start(HostPort("127.0.0.1", 0))
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: MetricsServer, request: bytes) -> tuple[int, str, str]:
    """Status, head and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split(" ")[1]), head, body


def get(path: str, method: str = "GET", *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


async def test_the_metrics_come_in_the_form_that_is_asked_for() -> None:
    async with serving() as server:
        status, head, body = await ask(server, get("/metrics"))
        assert (status, "banditmesh_answer 42.0" in body) == (200, True)
        assert "text/plain; version=" in head
        _, head, body = await ask(server, get("/metrics", "GET", "Accept: application/openmetrics-text;version=1.0.0"))
        assert "application/openmetrics-text" in head
        assert body.endswith("# EOF\n")


async def test_healthz_says_what_is_missing() -> None:
    async with serving() as server:
        assert (await ask(server, get("/healthz")))[::2] == (200, "ok\n")
    async with serving("redis", "kafka") as server:
        assert (await ask(server, get("/healthz")))[::2] == (503, "not ready: kafka, redis\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), 404),
        (get("/metrics/../etc/passwd"), 404),
        (get("/debug/pprof"), 404),
        (get("/metrics", "POST"), 405),
        (get("/metrics", "DELETE"), 405),
        (b"hello\r\n\r\n", 400),
        (b"GET /metrics HTTP/9\r\n\r\n", 400),
        (get("/metrics", "GET", "X: " + "x" * 20_000), 431),
    ],
)
async def test_there_is_nothing_else(request_: bytes, status: int) -> None:
    async with serving() as server:
        assert (await ask(server, request_))[0] == status


async def test_head_has_no_body() -> None:
    async with serving() as server:
        assert (await ask(server, get("/metrics", "HEAD")))[::2] == (200, "")


async def test_a_scrape_comes_through_however_many_idle_connections_there_are() -> None:
    async with serving() as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4 * MAX_CONNECTIONS)]
        assert (await ask(server, get("/metrics")))[0] == 200
        await eventually_so(lambda: server.connections <= MAX_CONNECTIONS)
        for _, writer in idle:
            writer.close()


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "REQUEST_S", 0.05)
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /metr")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        assert server.connections == 0
        writer.close()


async def test_a_taken_port_is_a_configuration_error_that_names_it() -> None:
    async with serving() as first:
        with pytest.raises(ConfigurationError, match=str(first.port)):
            await MetricsServer(CollectorRegistry()).start(HostPort("127.0.0.1", first.port))
