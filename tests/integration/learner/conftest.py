"""Topics for the learner's tests."""

from __future__ import annotations

import pytest

from banditmesh.local.kafka import Kafka
from tests.support.examples import ExamplesTopic


@pytest.fixture
async def topic(kafka: Kafka, fresh_topic_prefix: str) -> ExamplesTopic:
    """An empty topic of three partitions."""
    made = ExamplesTopic(kafka.bootstrap, fresh_topic_prefix, 3)
    await made.create()
    return made


@pytest.fixture(params=["file", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an empty store of either kind."""
    if request.param == "s3":
        url: str = request.getfixturevalue("fresh_store")
        return url
    return tmp_path_factory.mktemp("store").as_uri()


@pytest.fixture
def file_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an empty folder."""
    return tmp_path_factory.mktemp("store").as_uri()
