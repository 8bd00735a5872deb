"""gRPC to joiner and back."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from banditmesh.contracts.joiner.v1 import joiner_pb2, joiner_pb2_grpc
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.lengths import MAX_USER_ID_BYTES
from banditmesh.runtime import keys, packing
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.limits import check_text
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.user_record import DAY_S, MUTES, SHOWN, SHOWN_DAYS
from banditmesh.runtime.user_records import shows_within
from services.joiner.impressions import ImpressionsProcessor
from services.joiner.reactions import ReactionsProcessor
from services.joiner.users import Users


class JoinerServicer(joiner_pb2_grpc.JoinerServiceServicer):
    """Looks into the join."""

    def __init__(
        self,
        impressions: Mapping[int, ImpressionsProcessor],
        reactions: Mapping[int, ReactionsProcessor],
        users: Users,
        redis: RedisClient,
        clock: Clock,
    ) -> None:
        """``impressions`` and ``reactions``: what this process works on at the moment, by partition."""
        self._impressions = impressions
        self._reactions = reactions
        self._users = users
        self._redis = redis
        self._clock = clock

    async def GetJoinStatus(
        self, request: joiner_pb2.GetJoinStatusRequest, context: grpc.aio.ServicerContext
    ) -> joiner_pb2.GetJoinStatusResponse:
        """See the contract."""
        return joiner_pb2.GetJoinStatusResponse(
            impressions=[
                joiner_pb2.ImpressionsPartition(
                    partition=partition,
                    next_offset=each.next_offset,
                    end_offset=each.end_offset,
                    next_due=_time(each.next_due_ms),
                    examples=each.examples,
                )
                for partition, each in sorted(self._impressions.items())
            ],
            reactions=[
                joiner_pb2.ReactionsPartition(
                    partition=partition, next_offset=each.progress.offset, watermark=_time(each.progress.watermark_ms)
                )
                for partition, each in sorted(self._reactions.items())
                if each.progress is not None
            ],
        )

    async def GetUserState(
        self, request: joiner_pb2.GetUserStateRequest, context: grpc.aio.ServicerContext
    ) -> joiner_pb2.GetUserStateResponse:
        """See the contract."""
        check_text("user_id", request.user_id, MAX_USER_ID_BYTES)
        record = (await self._users.read([request.user_id]))[request.user_id].record
        clicks, mutes = record.clicks(), record.entries(MUTES)
        shown, now_s = record.entries(SHOWN), self._clock.now_s()
        events = np.concatenate([clicks, mutes])
        names = await self._content_names(np.concatenate([events["content"], shown["content"]]))
        answers = [
            joiner_pb2.UserEvent(
                time=_time(int(event["time_s"]) * 1000),
                content_key=int(event["content"]),
                content=names.get(int(event["content"]), ""),
                placement_key=int(event["placement"]),
            )
            for event in events
        ]
        return joiner_pb2.GetUserStateResponse(
            feedback_count=record.count("feedback"),
            clicks=answers[: len(clicks)],
            mutes=answers[len(clicks) :],
            shown_count=record.count("shown"),
            shown=[
                joiner_pb2.ShownContent(
                    content_key=int(each["content"]),
                    content=names.get(int(each["content"]), ""),
                    last_day=_time(int(each["day"]) * DAY_S * 1000),
                    count=count,
                )
                for each, count in zip(shown, shows_within(shown, SHOWN_DAYS, now_s).tolist(), strict=True)
            ],
        )

    async def _content_names(self, wanted: NDArray[np.uint64]) -> dict[int, str]:
        """``service/content_id`` of the contents that are known, by content key."""
        unique = [int(key) for key in np.unique(wanted)]
        values = await self._redis.read([keys.content(key) for key in unique])
        names: dict[int, str] = {}
        for key, value in zip(unique, values, strict=True):
            with suppress(DecodeError, ValueError, struct.error):  # the engine and the importer say so
                service, content = packing.unpack_content(value or b"")
                names[key] = f"{service}/{provider_pb2.Content.FromString(content).content_id}"
        return names


def _time(time_ms: int | None) -> Timestamp | None:
    if time_ms is None:
        return None
    timestamp = Timestamp()
    timestamp.FromMilliseconds(time_ms)
    return timestamp
