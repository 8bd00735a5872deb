"""Going back to an older snapshot, and every answer that a wrong call gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from banditmesh.contracts.learner.v1 import learner_pb2
from services.learner.catalog import ShardId
from tests.integration.learner.running import Running, published, running, settings
from tests.support.examples import ExamplesTopic, traffic

N = 200


@pytest.fixture
async def learner(topic: ExamplesTopic, any_store: str, tmp_path: Path) -> AsyncIterator[Running]:
    """A learner whose LinUCB model has version 1, of a part, and version 2, of all 200 examples."""
    records = traffic(N, partitions=3, seed=1)
    await topic.send(records[:100])
    async with running(settings(tmp_path, topic.bootstrap, any_store, topic.prefix)) as one:
        await one.until_learned(50)
        await one.parts.publisher.publish_all()
        await topic.send(records[100:])
        for policy in ("linucb", "popularity"):
            await one.until_learned(N, policy=policy)
        await one.parts.publisher.publish_all()
        yield one


def rollback(version: int, *, relearn: bool = False, **other: str) -> learner_pb2.RollbackSnapshotRequest:
    return learner_pb2.RollbackSnapshotRequest(
        **{"placement": "home", "model": "linucb", **other}, version=version, relearn=relearn
    )


async def snapshots(learner: Running) -> list[learner_pb2.Snapshot]:
    answer = await learner.stub.ListSnapshots(learner_pb2.ListSnapshotsRequest(placement="home", model="linucb"))
    return list(answer.snapshots)


async def test_snapshots_are_listed_newest_first(learner: Running) -> None:
    newest, oldest = await snapshots(learner)
    assert (newest.version, newest.examples, newest.current) == (2, N, True)
    assert (oldest.version, oldest.current) == (1, False)
    assert len(newest.sha256) == 64


async def test_a_rollback_publishes_the_old_tensors_as_a_new_version_and_forgets_what_came_since(
    learner: Running, any_store: str
) -> None:
    old = (await snapshots(learner))[-1]
    answer = (await learner.stub.RollbackSnapshot(rollback(1))).snapshot
    assert (answer.version, answer.rolled_back_to, answer.current) == (3, 1, True)
    assert (answer.sha256, answer.examples) == (old.sha256, old.examples)
    assert (await snapshots(learner))[0] == answer
    status = await learner.status("linucb")
    assert (status.version, status.examples) == (3, old.examples)
    result = await published(any_store, status.model)
    assert sum(result.manifest.offsets.values()) == N, "it goes on with the next new example"


async def test_a_rollback_with_relearning_comes_back_to_the_same_model_and_disturbs_no_other(
    learner: Running, any_store: str
) -> None:
    model = (await learner.status("linucb")).model
    before = await published(any_store, model)
    await learner.stub.RollbackSnapshot(rollback(1, relearn=True))
    await learner.until_learned(N)
    await learner.parts.publisher.publish_all()
    after = await published(any_store, model)
    assert after.manifest.version == 4
    assert after.body == before.body
    assert after.manifest.offsets == before.manifest.offsets
    other = await learner.status("popularity")
    assert (other.examples, other.duplicates) == (N, 0)


async def refused(learner: Running, request: learner_pb2.RollbackSnapshotRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await learner.stub.RollbackSnapshot(request)
    return caught.value


async def test_wrong_calls_are_told_what_there_is(learner: Running) -> None:
    cases = [
        (rollback(9), grpc.StatusCode.NOT_FOUND, "1, 2"),
        (rollback(0), grpc.StatusCode.INVALID_ARGUMENT, "from 1"),
        (rollback(1, placement="hom"), grpc.StatusCode.NOT_FOUND, "home"),
        (rollback(1, model="fm"), grpc.StatusCode.NOT_FOUND, "linucb-"),
        (rollback(1, model="random"), grpc.StatusCode.NOT_FOUND, "learns"),
    ]
    for request, code, said in cases:
        error = await refused(learner, request)
        assert error.code() == code, request
        assert said in (error.details() or "")


async def test_an_evaluation_without_archived_decisions_says_what_to_do(learner: Running) -> None:
    request = learner_pb2.EvaluatePolicyRequest(placement="home", variant="chance")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await learner.stub.EvaluatePolicy(request)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "decisions: {sample: 0.01}" in (caught.value.details() or "")
    updates = learner.stub.WatchEvaluation(learner_pb2.WatchEvaluationRequest(evaluation=request))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in updates:
            pass
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_page_that_is_too_large_is_refused(learner: Running) -> None:
    request = learner_pb2.ListSnapshotsRequest(placement="home", model="linucb", page_size=501)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await learner.stub.ListSnapshots(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_replica_that_does_not_own_a_model_names_the_one_that_does(
    topic: ExamplesTopic, any_store: str, tmp_path: Path
) -> None:
    probe = settings(tmp_path, topic.bootstrap, any_store, topic.prefix)
    async with running(probe) as alone:
        model = (await alone.status("linucb")).model
    owner = ShardId("home", model).owner(2)
    other = settings(tmp_path, topic.bootstrap, any_store, topic.prefix, replicas=2, ordinal=1 - owner)
    async with running(other) as learner:
        error = await refused(learner, rollback(1))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert f"learned by replica {owner}, this is replica {1 - owner}" in (error.details() or "")
