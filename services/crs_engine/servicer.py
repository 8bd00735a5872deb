"""gRPC on the outside, requests and outcomes on the inside; no logic."""

from __future__ import annotations

import grpc

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2_grpc
from banditmesh.runtime.errors import MeshError, NotFound
from services.crs_engine import validation
from services.crs_engine.batching import Batcher
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.explain import Explainer
from services.crs_engine.models import Models
from services.crs_engine.pipeline.batch import Outcome, SelectionRequest
from services.crs_engine.status import model_status


class CrsEngineServicer(crs_engine_pb2_grpc.CrsEngineServiceServicer):
    """See ``crs_engine.proto``."""

    def __init__(
        self, placements: dict[str, CompiledPlacement], batcher: Batcher, explainer: Explainer, models: Models
    ) -> None:
        self._placements = placements
        self._batcher = batcher
        self._explainer = explainer
        self._models = models

    async def SelectContent(
        self, request: pb.SelectContentRequest, context: grpc.aio.ServicerContext
    ) -> pb.SelectContentResponse:
        """One content for one user."""
        (outcome,) = await self._batcher.submit(
            [validation.checked(request, self._placements)], context.time_remaining()
        )
        response = pb.SelectContentResponse()
        _fill(response.selection, outcome)
        return response

    async def BatchSelectContents(
        self, request: pb.BatchSelectContentsRequest, context: grpc.aio.ServicerContext
    ) -> pb.BatchSelectContentsResponse:
        """One content for each of several users; what is wrong with one request is said in its place."""
        validation.check_batch(len(request.requests))
        within_s = context.time_remaining()
        self._batcher.admit(len(request.requests), within_s)
        response = pb.BatchSelectContentsResponse()
        valid: list[SelectionRequest] = []
        wanting: list[pb.Selection] = []
        hinted = True
        for position, each in enumerate(request.requests):
            # Filled in place: a message that is put into another one is copied, and there are three around a content.
            result = response.results.add()
            try:
                valid.append(validation.checked(each, self._placements, at=f"requests[{position}].", hinted=hinted))
                wanting.append(result.selection)
            except MeshError as error:
                hinted = hinted and not isinstance(error, NotFound)
                result.error.CopyFrom(_request_error(error))
        outcomes = await self._batcher.submit(valid, within_s) if valid else []
        for selection, outcome in zip(wanting, outcomes, strict=True):
            _fill(selection, outcome)
        return response

    async def RecommendContents(
        self, request: pb.RecommendContentsRequest, context: grpc.aio.ServicerContext
    ) -> pb.RecommendContentsResponse:
        """A ranked list for one user."""
        count = validation.checked_count(request.count)
        (outcome,) = await self._batcher.submit(
            [validation.checked(request, self._placements, count=count)], context.time_remaining()
        )
        contents = [pb.SelectedContent.FromString(content) for content in outcome.contents]
        return pb.RecommendContentsResponse(contents=contents, no_content=outcome.empty)

    async def ExplainDecision(
        self, request: pb.ExplainDecisionRequest, context: grpc.aio.ServicerContext
    ) -> pb.ExplainDecisionResponse:
        """How a decision comes about."""
        return await self._explainer.explain(request)

    async def GetModelStatus(
        self, request: pb.GetModelStatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelStatusResponse:
        """The models that are loaded."""
        if request.placement and request.placement not in self._placements:
            raise validation.unknown_placement(request.placement, self._placements, "placement")
        return model_status(self._models, request.placement)


def _fill(selection: pb.Selection, outcome: Outcome) -> None:
    if outcome.empty is not None:
        selection.no_content.CopyFrom(outcome.empty)
    else:
        selection.content.MergeFromString(outcome.contents[0])


def _request_error(error: MeshError) -> pb.RequestError:
    code: int = error.code.value[0]
    return pb.RequestError(code=code, message=str(error), field=error.field or "")
