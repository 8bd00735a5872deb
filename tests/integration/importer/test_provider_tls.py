"""Data Providers that speak TLS, and want to know who calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from banditmesh.local.authority import LOCAL_NAMES, Authority
from banditmesh.provider import Content, DataProvider
from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.serve import ServerOptions
from banditmesh.runtime.tls import ClientTls, ServerTls
from services.importer import provider_calls
from services.importer.metrics import ImporterMetrics
from services.importer.provider_calls import ProviderCalls, ProviderUnavailable


class Weather(DataProvider):
    async def get_contents(self, service: str, content_ids: Sequence[str]) -> list[Content]:
        return [Content(content_id, title="Sunny") for content_id in content_ids]


async def test_a_provider_is_called_by_mutual_tls_and_without_a_certificate_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_calls, "ATTEMPTS", 1)
    authority = Authority(tmp_path / "pki")
    tls = ServerTls(*authority.issue("weather", names=LOCAL_NAMES), authority.ca)
    async with Weather().server(ServerOptions(tls=tls)) as server:

        async def titles(mine: ClientTls | None) -> list[str]:
            calls = ProviderCalls(
                {"weather": f"localhost:{server.port}"},
                ImporterMetrics(CollectorRegistry()),
                SystemClock(),
                Random(1),
                timeout_s=5,
                tls=mine,
            )
            try:
                return [content.title for content in (await calls.get_contents("weather", ["tokyo"])).contents]
            finally:
                await calls.close()

        assert await titles(ClientTls(authority.ca, *authority.issue("importer"))) == ["Sunny"]
        for mine in (None, ClientTls(authority.ca)):
            with pytest.raises(ProviderUnavailable):
                await titles(mine)
