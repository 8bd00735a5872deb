"""Fixtures for all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from banditmesh.runtime.outages import outages

pytest_plugins = ["tests.support.servers"]

# No example has a deadline: on a busy machine each may take long, and says nothing about the code.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")


@pytest.fixture(autouse=True)
def no_outages() -> Iterator[None]:
    """No test is told of another's outage."""
    yield
    outages.clear()
