"""Fixtures of the importer's integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.importing import Importer, Reader, ScriptedProvider, mesh_yaml, running_importer, running_provider


@pytest.fixture
async def reader(fresh_redis: str) -> AsyncIterator[Reader]:
    reader = Reader(fresh_redis)
    yield reader
    await reader.close()


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with running_provider() as provider:
        yield provider


@pytest.fixture
async def importer(fresh_redis: str, provider: ScriptedProvider, tmp_path: Path) -> AsyncIterator[Importer]:
    mesh = mesh_yaml(provider=provider.address, importing="batch_rows: 20, max_rejected: 0.25, max_candidates: 5")
    async with running_importer(tmp_path, fresh_redis, mesh) as importer:
        yield importer
