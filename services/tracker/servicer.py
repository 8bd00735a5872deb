"""``banditmesh.tracker.v1.EventTrackerService``: proto ↔ domain, nothing else."""

from __future__ import annotations

import grpc

from banditmesh.contracts.tracker.v1 import tracker_pb2, tracker_pb2_grpc
from services.tracker.intake import Accepted, Refused
from services.tracker.tracker import Tracker

ANSWER_S = 0.05
"""Left of the caller's deadline for an answer in words: an UNAVAILABLE that says when to retry beats a
DEADLINE_EXCEEDED."""


class EventTrackerServicer(tracker_pb2_grpc.EventTrackerServiceServicer):
    """Serves ``TrackEvents``."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    async def TrackEvents(
        self,
        request: tracker_pb2.TrackEventsRequest,
        context: grpc.aio.ServicerContext[tracker_pb2.TrackEventsRequest, tracker_pb2.TrackEventsResponse],
    ) -> tracker_pb2.TrackEventsResponse:
        remaining_s = context.time_remaining()
        timeout_s = None if remaining_s is None else max(0.0, remaining_s - ANSWER_S)
        results = await self._tracker.track(request.events, timeout_s=timeout_s)
        return tracker_pb2.TrackEventsResponse(
            results=map(_answer, results), accepted=sum(isinstance(result, Accepted) for result in results)
        )


def _answer(result: Accepted | Refused) -> tracker_pb2.EventResult:
    if isinstance(result, Accepted):
        return tracker_pb2.EventResult(status=tracker_pb2.EVENT_STATUS_ACCEPTED, impression_id=result.impression_id)
    return tracker_pb2.EventResult(status=result.status, message=result.message, impression_id=result.impression_id)
