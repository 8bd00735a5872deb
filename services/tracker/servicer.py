"""``banditmesh.tracker.v1.EventTrackerService``: proto ↔ domain, nothing else."""

from __future__ import annotations

import grpc

from banditmesh.contracts.tracker.v1 import tracker_pb2, tracker_pb2_grpc
from services.tracker.intake import Refused
from services.tracker.tracker import Tracker, status_of

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
        response = tracker_pb2.TrackEventsResponse(
            results=[
                tracker_pb2.EventResult(
                    status=status_of(result),
                    message=result.message if isinstance(result, Refused) else "",
                    impression_id=result.impression_id,
                )
                for result in results
            ]
        )
        response.accepted = sum(not isinstance(result, Refused) for result in results)
        return response
