"""Decisions with all their candidates, from a selection over a socket to the row of a decision log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer
from prometheus_client import CollectorRegistry

from banditmesh.archive.parquet import encode
from banditmesh.archive.state import Mark
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.decisions import encoder
from banditmesh.decisions.reader import LogFile
from banditmesh.decisions.view import View
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.store import open_store
from banditmesh.runtime.stream import Consumed
from banditmesh.runtime.token import KeyRing
from services.learner.archiving.decisions import Became, DecisionsFormat
from services.learner.archiving.metrics import ArchiveMetrics
from tests.support.archive import NOON
from tests.support.engine_world import MESH, TOKEN_KEYS, World, engine_world
from tests.support.eventually import eventually_so

SAMPLED = MESH.replace(
    "    experiment:\n", "    decisions: {sample: 1.0}\n    rules: {cap_per_service: {most: 2}}\n    experiment:\n"
).replace("explore: {greedy: {}}", "explore: {softmax: {temperature: 1.0}}")
RING = KeyRing.parse(TOKEN_KEYS)


async def with_candidates(world: World) -> None:
    """Ann has three contents of one service and one of another."""
    keys = [
        await world.hands.content(
            "weather", f"w{number}", genre=["alert", "storm"][: 1 + number % 2], year=2020.0 + number
        )
        for number in range(3)
    ]
    comic = await world.hands.content("comics", "c0", genre="manga")
    await world.hands.profiles({"ann": {"age": "20s"}})
    await world.hands.mapping("weather/today", {"ann": keys})
    await world.hands.mapping("comics/new", {"ann": [comic]})
    await world.parts.live.reread()


async def recommended(world: World, count: int) -> list[pb.SelectedContent]:
    answer = await world.stub.RecommendContents(
        pb.RecommendContentsRequest(placement="head", user_id="ann", count=count, context={"device": "phone"}),
        timeout=10,
    )
    return list(answer.contents)


async def in_topic(kafka: Kafka, topic: str, n: int) -> list[Consumed]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found: list[Consumed] = []
        while len(found) < n:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [Consumed(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value) for r in records]
        return found
    finally:
        await consumer.stop()


async def test_a_sampled_list_is_in_the_topic_with_all_candidates_and_becomes_rows_of_a_decision_log(
    fresh_redis: str, kafka: Kafka, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=2, replication=1)
    mesh = f'{SAMPLED}\nkafka: {{topic_prefix: "{fresh_topic_prefix}"}}\n'
    async with engine_world(fresh_redis, tmp_path, mesh=mesh, kafka=kafka.bootstrap) as world:
        await with_candidates(world)
        shown = await recommended(world, 3)
        records = sorted(await in_topic(kafka, topics.decisions, 3), key=lambda record: record.offset)

    sampled = [events_pb2.SampledDecision.FromString(record.value) for record in records]
    assert [each.decision.impression_id for each in sampled] == [each.impression_id for each in shown]
    tokens = [
        RING.verify(each.impression_token, now_s=sampled[0].decision.decided_at_ms / 1000, max_age_s=60)
        for each in shown
    ]
    for each, token in zip(sampled, tokens, strict=True):
        token_fields = {field.name for field, _ in token.ListFields()} - {"features"}
        for name in token_fields:
            assert getattr(each.decision, name) == getattr(token, name)
        chosen = each.candidates[each.chosen]
        assert (chosen.service, chosen.content_id, chosen.logic) == (token.service, token.content_id, token.logic)
        assert chosen.propensity == pytest.approx(token.propensity, rel=1e-6)
        assert sum(candidate.propensity for candidate in each.candidates) == pytest.approx(1)
    # Four could have the first position, three the second; after two of the weather service none of it may follow.
    before_last = [each.decision.service for each in sampled[:2]]
    assert [len(each.candidates) for each in sampled] == [4, 3, 1 if before_last == ["weather"] * 2 else 2]

    rows = DecisionsFormat(
        open_store(tmp_path.as_uri()), None, ArchiveMetrics(CollectorRegistry()), shown_within_s=3600
    )

    async def became(*_: object) -> dict[bytes, Became]:
        return {each.impression_id: Became(NOON, "click", None, 1.0, ["click"], NOON) for each in shown}

    rows._became = became  # type: ignore[method-assign]

    ((folder, table),) = await rows.tables(rows.pieces(records, 1, Mark()), 1, records[0].partition)
    assert (folder.kind, folder.placement) == ("decisions", "head")
    path = tmp_path / "log.parquet"
    path.write_bytes(encode(table).to_pybytes())
    decisions = list(LogFile(path).rows())
    assert [each.reward for each in decisions] == [1.0, 1.0, 1.0]
    batch = encoder.encode(decisions, View(user=False, cross=[("age", "genre")]))
    for number, token in enumerate(tokens):
        row = batch.candidates.context.take(np.array([number])).beside(
            batch.candidates.features.take(batch.shown[number : number + 1])
        )
        assert sorted(row.ids.tolist()) == sorted(token.features.ids)


async def test_without_kafka_selections_go_on_and_what_is_dropped_is_counted(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path, mesh=SAMPLED, kafka="127.0.0.1:1") as world:
        await with_candidates(world)
        assert len(await recommended(world, 3)) == 3

        def dropped() -> float:
            labels = {"reason": "kafka"}
            name = "banditmesh_engine_sampled_decisions_dropped_total"
            return world.server.registry.get_sample_value(name, labels) or 0.0

        assert await eventually_so(dropped) == 3
        assert len(await recommended(world, 3)) == 3


async def test_an_engine_that_knows_no_kafka_samples_nothing(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path, mesh=SAMPLED) as world:
        await with_candidates(world)
        assert len(await recommended(world, 3)) == 3
        assert world.parts.engine.sampler is None
