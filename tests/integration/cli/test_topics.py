"""``banditmesh topics``, which a chart's Job runs as often as it likes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from banditmesh.local import ports
from banditmesh.local.kafka import Kafka
from tests.support.command import banditmesh

MESH = """
services: {{films: {{logics: [similar]}}}}
placements: {{home: {{sources: [films/similar]}}}}
kafka: {{topic_prefix: "{prefix}", partitions: {partitions}}}
"""


@pytest.fixture
def config(tmp_path: Path, fresh_topic_prefix: str) -> Path:
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH.format(prefix=fresh_topic_prefix, partitions=3))
    return path


def topics(kafka: str, config: Path) -> subprocess.CompletedProcess[str]:
    return banditmesh("topics", config, env={"BANDITMESH_KAFKA": kafka})


def test_twice_is_as_good_as_once(kafka: Kafka, config: Path) -> None:
    for _ in range(2):
        run = topics(kafka.bootstrap, config)
        assert run.returncode == 0, run.stderr
        assert "3 partitions each, as the mesh needs them" in run.stdout


def test_it_refuses_to_shrink(kafka: Kafka, config: Path, fresh_topic_prefix: str) -> None:
    assert topics(kafka.bootstrap, config).returncode == 0
    config.write_text(MESH.format(prefix=fresh_topic_prefix, partitions=2))
    run = topics(kafka.bootstrap, config)
    assert run.returncode == 2
    assert "the topics have 3 partitions, mesh.yaml says kafka.partitions: 2; a topic cannot shrink" in run.stderr
    assert "set kafka.partitions: 3" in run.stderr


def test_a_kafka_that_is_away_is_one_line_and_may_be_tried_again(config: Path) -> None:
    run = topics(f"127.0.0.1:{ports.free(1)[0]}", config)
    assert run.returncode == 1
    assert "cannot be reached: connection refused, nothing listens there; see BANDITMESH_KAFKA" in run.stderr
    assert "Traceback" not in run.stderr
