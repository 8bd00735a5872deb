"""``banditmesh.learner.v1.LearnerService``: proto ↔ domain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from banditmesh.contracts.learner.v1 import learner_pb2, learner_pb2_grpc
from banditmesh.runtime.access import CURRENT
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument, Unavailable
from banditmesh.runtime.limits import check_text
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import Store, must_answer
from services.learner.catalog import Catalog, ShardId
from services.learner.density_learner import DensityLearner
from services.learner.density_shard import DensityShard
from services.learner.evaluation_reply import evaluated, question
from services.learner.evaluations import Evaluations
from services.learner.experiment_reply import change, reply, timestamp
from services.learner.experiments import Experiments
from services.learner.publisher import Publisher
from services.learner.rollback import Rollback
from services.learner.shard import Shard

DEFAULT_PAGE, MAX_PAGE = 20, 500
MAX_WHY_BYTES = 1000
STORE_ANSWERS_S = 4.0
"""A caller without a deadline gets 10 s."""
Context = Any
"""grpc.aio's ServicerContext; grpc has no types."""


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    """Answers for the shards of this replica."""

    def __init__(
        self,
        catalog: Catalog,
        shards: Mapping[ShardId, Shard],
        store: Store,
        snapshots: Snapshots,
        publisher: Publisher,
        rollback: Rollback,
        experiments: Experiments,
        evaluations: Evaluations,
        densities: DensityLearner,
        *,
        ordinal: int,
        replicas: int,
    ) -> None:
        self._catalog = catalog
        self._shards = shards
        self._store = store
        self._snapshots = snapshots
        self._publisher = publisher
        self._rollback = rollback
        self._experiments = experiments
        self._evaluations = evaluations
        self._densities = densities
        self._ordinal = ordinal
        self._replicas = replicas

    async def GetLearnerStatus(
        self, request: learner_pb2.GetLearnerStatusRequest, context: Context
    ) -> learner_pb2.GetLearnerStatusResponse:
        """See learner.proto."""
        return learner_pb2.GetLearnerStatusResponse(
            ordinal=self._ordinal,
            replicas=self._replicas,
            shards=[
                *(self._status(shard) for _, shard in sorted(self._shards.items())),
                *(_density_status(shard) for _, shard in sorted(self._densities.shards.items())),
            ],
        )

    async def ListSnapshots(
        self, request: learner_pb2.ListSnapshotsRequest, context: Context
    ) -> learner_pb2.ListSnapshotsResponse:
        """See learner.proto. Any replica answers for every model."""
        if request.page_size > MAX_PAGE:
            raise InvalidArgument(f"at most {MAX_PAGE} are allowed", field="page_size", value=request.page_size)
        shard_id = self._catalog.find(request.placement, request.model)
        await must_answer(self._store, STORE_ANSWERS_S)
        current = await self._snapshots.pointer(*shard_id)
        found = await self._snapshots.list(*shard_id, request.page_size or DEFAULT_PAGE)
        newest = current.version if current else 0
        return learner_pb2.ListSnapshotsResponse(snapshots=[_snapshot(each, newest) for each in found])

    async def RollbackSnapshot(
        self, request: learner_pb2.RollbackSnapshotRequest, context: Context
    ) -> learner_pb2.RollbackSnapshotResponse:
        """See learner.proto."""
        shard_id = self._catalog.find(request.placement, request.model)
        if request.version == 0:
            raise InvalidArgument("versions are counted from 1", field="version", value=0)
        shard, density = self._shards.get(shard_id), self._densities.shards.get(shard_id)
        if density is not None:
            if not self._densities.restored.is_set():
                raise Unavailable("the densities are not loaded yet", retry_after_s=1.0)
            await must_answer(self._store, STORE_ANSWERS_S)
            manifest = await self._densities.rollback(density, request.version, relearn=request.relearn)
            return learner_pb2.RollbackSnapshotResponse(snapshot=_snapshot(manifest, manifest.version))
        if shard is None:
            owner = shard_id.owner(self._replicas)
            raise FailedPrecondition(
                f"{shard_id.placement}/{shard_id.model} is learned by replica {owner}, this is replica {self._ordinal}",
                field="model",
                value=request.model,
                hint=f"call the learner with ordinal {owner}",
            )
        if not self._publisher.restored.is_set():
            raise Unavailable("the models are not loaded yet", retry_after_s=1.0)
        await must_answer(self._store, STORE_ANSWERS_S)
        manifest = await self._rollback(shard, request.version, relearn=request.relearn)
        return learner_pb2.RollbackSnapshotResponse(snapshot=_snapshot(manifest, manifest.version))

    async def EvaluatePolicy(
        self, request: learner_pb2.EvaluatePolicyRequest, context: Context
    ) -> learner_pb2.EvaluatePolicyResponse:
        """See learner.proto. Any replica does it for every placement."""
        asked = question(request)
        await must_answer(self._store, STORE_ANSWERS_S)
        return evaluated(await self._evaluations.run(asked))

    async def WatchEvaluation(
        self, request: learner_pb2.WatchEvaluationRequest, context: Context
    ) -> AsyncIterator[learner_pb2.WatchEvaluationResponse]:
        """See learner.proto."""
        asked = question(request.evaluation)
        await must_answer(self._store, STORE_ANSWERS_S)
        async for update in self._evaluations.watch(asked):
            answer = learner_pb2.WatchEvaluationResponse(stage=update.stage, decisions=update.rows, share=update.share)
            if update.result is not None:
                answer.result.CopyFrom(evaluated(update.result))
            yield answer

    async def GetExperimentReport(
        self, request: learner_pb2.GetExperimentReportRequest, context: Context
    ) -> learner_pb2.GetExperimentReportResponse:
        """See learner.proto. Any replica answers for every placement."""
        await must_answer(self._store, STORE_ANSWERS_S)
        return reply(await self._experiments.report(request.placement, request.era))

    async def ResumeVariant(
        self, request: learner_pb2.ResumeVariantRequest, context: Context
    ) -> learner_pb2.ResumeVariantResponse:
        """See learner.proto."""
        check_text("why", request.why, MAX_WHY_BYTES, optional=True)
        await must_answer(self._store, STORE_ANSWERS_S)
        call = CURRENT.get()
        who = call.caller if call is not None else "somebody (the mesh has no access table)"
        was = await self._experiments.resume(request.placement, request.variant, who, request.why)
        return learner_pb2.ResumeVariantResponse(was=change(was))

    def _status(self, shard: Shard) -> learner_pb2.ShardStatus:
        published = self._publisher.published[shard.id]
        status = learner_pb2.ShardStatus(
            placement=shard.id.placement,
            model=shard.id.model,
            examples=shard.examples,
            version=published.pointer.version if published.pointer else 0,
            duplicates=shard.duplicates,
        )
        if published.at_ms:
            status.published_at.CopyFrom(timestamp(published.at_ms))
        if shard.watermark_ms:
            status.watermark.CopyFrom(timestamp(shard.watermark_ms))
        return status


def _density_status(shard: DensityShard) -> learner_pb2.ShardStatus:
    status = learner_pb2.ShardStatus(
        placement=shard.id.placement,
        model=shard.id.model,
        examples=shard.sums.events,
        version=shard.pointer.version if shard.pointer else 0,
    )
    if shard.published_at_ms:
        status.published_at.CopyFrom(timestamp(shard.published_at_ms))
    if shard.sums.now_s:
        status.watermark.CopyFrom(timestamp(int(shard.sums.now_s * 1000)))
    return status


def _snapshot(manifest: Manifest, current: int) -> learner_pb2.Snapshot:
    return learner_pb2.Snapshot(
        version=manifest.version,
        published_at=timestamp(manifest.published_at_ms),
        examples=manifest.examples,
        current=manifest.version == current,
        rolled_back_to=manifest.rolled_back_to,
        sha256=manifest.sha256,
    )
