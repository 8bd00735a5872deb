"""``banditmesh export examples --topic``: the decision log out of Kafka itself."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from banditmesh.cli.commands import main
from banditmesh.decisions.reader import read
from banditmesh.local.kafka import Kafka
from tests.support.examples import T0_MS, ExamplesTopic, Given, closing, example

MESH = """
services: {{films: {{logics: [similar]}}}}
placements: {{home: {{sources: [films/similar]}}, other: {{sources: [films/similar]}}}}
kafka: {{topic_prefix: "{prefix}", partitions: 2}}
"""


def at(second: float, *, partition: int = 0, offset: int = 0, placement: str = "home", content: str = "c") -> Given:
    """An example of what was shown so many seconds after the beginning, joined a minute later."""
    time_ms = T0_MS + round(1000 * second)
    one = example(
        source=(partition, offset), placement=placement, content=content, reward=0.5, time_ms=time_ms, ids=(5, 7)
    )
    return Given(partition, time_ms + 60_000, one.SerializeToString())


async def filled(topic: ExamplesTopic) -> None:
    await topic.create()
    await topic.send(
        [
            at(-1, offset=1, content="before"),
            at(0, offset=2, content="first"),
            at(1, partition=1, offset=1, content="second"),
            at(1, partition=1, offset=1, content="second"),  # a joiner that was fenced had written it already
            Given(0, T0_MS + 61_500, b"\xff\xff"),
            at(2, offset=3, placement="other", content="elsewhere"),
            at(10, partition=1, offset=2, content="after"),
            *closing(2, T0_MS + 80_000),
        ]
    )


def test_the_topic_gives_the_rows_that_the_archive_would_have(
    kafka: Kafka, fresh_topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(filled(ExamplesTopic(kafka.bootstrap, fresh_topic_prefix, 2)))
    config, out = tmp_path / "mesh.yaml", tmp_path / "log.jsonl"
    config.write_text(MESH.format(prefix=fresh_topic_prefix))
    start, end = (datetime.fromtimestamp(T0_MS / 1000 + each, UTC).isoformat() for each in (0, 10))
    monkeypatch.setenv("BANDITMESH_KAFKA", kafka.bootstrap)
    words = ["export", "examples", out, "--topic", "--from", start, "--to", end, "--placement", "home"]
    monkeypatch.setattr("sys.argv", ["banditmesh", *map(str, words), "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code

    rows = sorted(read(out), key=lambda row: row.time_s)
    assert [(row.time_s - T0_MS / 1000, row.ids, row.reward, row.propensity) for row in rows] == [
        (0, ["first"], 0.5, 0.5),
        (1, ["second"], 0.5, 0.5),
    ]
    assert [dict(row.features[0]) for row in rows] == [{"#5": 1.0, "#7": 1.0}] * 2
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(each["placement"], each["outcome"], each["user"]) for each in said} == {("home", "none", "u1")}
