"""The client and a real tracker on a real Kafka, which is restarted under the client's hands."""

from __future__ import annotations

from pathlib import Path

from banditmesh.client import MeshClient, click, shown, target
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.errors import FailedPrecondition, NotFound
from tests.integration.tracker.running import decision, records_of, running_tracker


async def test_what_the_client_is_told_is_stored_is_stored_and_the_rest_has_a_typed_error(
    kafka: Kafka, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    impression_id, token = decision()
    _, expired = decision(age_s=7200.0)
    async with running_tracker(tmp_path, kafka.bootstrap, fresh_topic_prefix) as tracker:
        address = f"127.0.0.1:{tracker.port}"
        async with MeshClient(address, address) as mesh:
            outcomes = await mesh.track(
                [shown(token), click(token), shown(expired), target(token, "rent"), target(token, "purchase")],
                deadline_s=20.0,
            )
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        type(None),
        FailedPrecondition,
        NotFound,
        type(None),
    ]
    records = await records_of(kafka.bootstrap, fresh_topic_prefix + "reactions")
    reactions = [events_pb2.Reaction.FromString(record.value or b"") for record in records]
    assert [reaction.WhichOneof("kind") for reaction in reactions] == ["click", "target"]
    assert {reaction.decision.impression_id for reaction in reactions} == {impression_id}
