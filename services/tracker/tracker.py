"""From events to acknowledged records: the tracker's one path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol

from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import InvalidArgument, Unavailable
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.sizes import MessageSizes
from services.tracker.intake import Accepted, Intake, Refused
from services.tracker.metrics import KEYLESS, TrackerMetrics

MAX_EVENTS = 1000


class Log(Protocol):
    """Where records are stored; :class:`banditmesh.runtime.kafka.producer.Producer` is one."""

    async def send_many(self, records: Sequence[Record], *, timeout_s: float | None = None) -> object:
        """Return once all are stored; raise Unavailable when they are not in time."""
        ...

    @property
    def sizes(self) -> MessageSizes:
        """What is known of how large a record may be."""
        ...


class Tracker:
    """Checks events and stores the good ones."""

    def __init__(self, intake: Intake, log: Log, metrics: TrackerMetrics, clock: Clock) -> None:
        self._intake = intake
        self._log = log
        self._metrics = metrics
        self._clock = clock

    async def track(
        self, events: Sequence[tracker_pb2.Event], *, timeout_s: float | None = None
    ) -> list[Accepted | Refused]:
        """What became of each event, in their order; what is Accepted is acknowledged by Kafka.

        Args:
            events: 1 to 1000.
            timeout_s: How long the caller can wait for Kafka.

        Raises:
            InvalidArgument: There are no events, or too many.
            Unavailable: Kafka did not acknowledge all of them. Nothing is promised of any; the caller sends all of them
                again.
        """
        if not 1 <= len(events) <= MAX_EVENTS:
            raise InvalidArgument(
                f"a request takes 1 to {MAX_EVENTS} events", field="events", value=len(events), hint="split the request"
            )
        results = [self._fitting(self._intake.check(event)) for event in events]
        accepted = [result for result in results if isinstance(result, Accepted)]
        refused = [result for result in results if isinstance(result, Refused)]
        self._count_tokens(accepted, refused)
        if accepted:
            began_s = self._clock.monotonic_s()
            try:
                await self._log.send_many([result.record for result in accepted], timeout_s=timeout_s)
            except Unavailable:
                self._metrics.unacknowledged.inc(len(accepted))
                raise
            self._metrics.ack_seconds.observe(self._clock.monotonic_s() - began_s)
        self._count_events(accepted, refused)
        return results

    def _fitting(self, result: Accepted | Refused) -> Accepted | Refused:
        """A record that its topic does not take is refused by itself: the others of the request are stored."""
        if isinstance(result, Refused):
            return result
        record = result.record
        if self._log.sizes.takes(record.topic, record.size):
            return result
        said = f"the event has {record.size} bytes, more than topic {record.topic} takes (max.message.bytes)"
        status = tracker_pb2.EVENT_STATUS_INVALID
        return Refused(result.kind, result.token_key, result.impression_id, status, said)

    def _count_tokens(self, accepted: Sequence[Accepted], refused: Sequence[Refused]) -> None:
        for key, count in Counter(map(_TOKEN_KEY, accepted)).items():
            self._metrics.tokens.labels(str(key), "ok").inc(count)
        for result in refused:
            key = KEYLESS if result.token_key is None else str(result.token_key)
            self._metrics.tokens.labels(key, "ok" if result.fault is None else result.fault.name.lower()).inc()

    def _count_events(self, accepted: Sequence[Accepted], refused: Sequence[Refused]) -> None:
        for kind, count in Counter(map(_KIND, accepted)).items():
            self._metrics.events.labels(kind, _name(tracker_pb2.EVENT_STATUS_ACCEPTED)).inc(count)
        for result in refused:
            self._metrics.events.labels(result.kind, _name(result.status)).inc()


_TOKEN_KEY, _KIND = attrgetter("token_key"), attrgetter("kind")


def _name(status: tracker_pb2.EventStatus.ValueType) -> str:
    return tracker_pb2.EventStatus.Name(status).removeprefix("EVENT_STATUS_").lower()
