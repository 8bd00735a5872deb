"""A fresh Redis and Kafka that say what they are told."""

from __future__ import annotations

import pytest

from tests.unit.joiner.told import (
    FakeCheckpoint,
    FakeLedger,
    FakeLog,
)


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def checkpoint() -> FakeCheckpoint:
    return FakeCheckpoint()
