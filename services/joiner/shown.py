"""One partition of topic ``impressions``, read at once: what was shown comes into the users' records.

A consumer group of its own, beside the one that reads the topic a join window late. An impression that cannot be read
is passed over: the other one makes a dead letter of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from banditmesh.bandits.hashing import content_key, service_key
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.stream import Consumed, Offsets, StartOver
from banditmesh.runtime.token import MOST_LABELS
from banditmesh.runtime.user_record import Position, UserRecord
from services.joiner.checkpoint import Checkpoint, ProgressMoved
from services.joiner.events import read_impression
from services.joiner.metrics import JoinerMetrics
from services.joiner.reactions import start_anew
from services.joiner.users import Users

STREAM = "shown"
REMEMBERED_MS = 120_000
MOST_REMEMBERED = 50_000
"""For how long, by the broker's times, and how many ids of the newest impressions of a partition are remembered at
least; at most it is twice as much. An app sends again within seconds; a copy that comes after another process has taken
the partition over is counted twice."""


class Shown(NamedTuple):
    """An impression, as far as it matters here."""

    offset: int
    time_ms: int
    decision: events_pb2.Decision


class Recent:
    """Ids that came lately. In two generations, for to forget a whole one costs nothing, and what is remembered depends
    on the traffic and not on how long the process has run."""

    def __init__(self) -> None:
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()
        self._since_ms = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def add(self, identity: bytes, time_ms: int) -> bool:
        """Whether it is not known yet; it is from now on."""
        if time_ms - self._since_ms >= REMEMBERED_MS or len(self._new) >= MOST_REMEMBERED:
            self._old, self._new, self._since_ms = self._new, set(), time_ms
        if identity in self._new or identity in self._old:
            return False
        self._new.add(identity)
        return True


def advance(records: Mapping[str, UserRecord], shown: Sequence[Shown], log: int) -> dict[str, UserRecord]:
    """Return the records that change when impressions are counted in them, by user id. Counting again changes nothing.

    Args:
        records: Of users, by user id; impressions of others are passed over.
        shown: In the order of their offsets.
        log: Of which log those offsets are.
    """
    changed: dict[str, UserRecord] = {}
    for each in shown:
        decision = each.decision
        user_id, service = decision.user_id, decision.service
        record = changed.get(user_id) or records.get(user_id)
        if record is not None and each.offset > record.applied(STREAM, log):
            changed[user_id] = record.shown(
                each.time_ms // 1000,
                content_key(service, decision.content_id),
                service_key(service),
                decision.counted_by[:MOST_LABELS],
                at=Position(STREAM, log, each.offset),
            )
    return changed


class ShownProcessor:
    """See :class:`banditmesh.runtime.stream.Processor`. Two owners harm nothing: each record says how far it is, and
    Redis takes progress only from who knows the last one."""

    def __init__(
        self,
        partition: int,
        offsets: Offsets,
        checkpoint: Checkpoint,
        *,
        users: Users,
        horizon_ms: int,
        clock: Clock,
        metrics: JoinerMetrics,
        last_end: Callable[[int], int | None],
    ) -> None:
        """``horizon_ms``: how far back to begin when Redis knows nothing."""
        self.partition = partition
        self._offsets = offsets
        self._checkpoint = checkpoint
        self._users = users
        self._horizon_ms = horizon_ms
        self._clock = clock
        self._metrics = metrics
        self._last_end = last_end
        self._seen = Recent()

    async def start_offset(self) -> int:
        """Where Redis says; when it knows nothing, at ``now - horizon``."""
        progress = await self._checkpoint.read()
        if progress is not None:
            return progress.offset
        self._metrics.progress_lost.labels(stream=STREAM).inc()
        since_ms = int(self._clock.now_s() * 1000) - self._horizon_ms
        return await start_anew(self._checkpoint, self._offsets, self.partition, since_ms)

    async def process(self, records: Sequence[Consumed]) -> None:
        """Count a batch in the users' records, then move the checkpoint."""
        shown = self._first_copies(records)
        following = self._checkpoint.following(records[-1].offset + 1, max(record.time_ms for record in records))
        try:
            conflicts = await self._users.change(
                {each.decision.user_id for each in shown},
                lambda found: advance(found, shown, self._checkpoint.log),
                self._checkpoint.verify,
            )
            await self._checkpoint.move(following)
        except ProgressMoved as error:
            raise StartOver(str(error)) from error
        self._offsets.report(self.partition, following.offset)
        self._metrics.record_conflicts.inc(conflicts)
        self._metrics.shown.inc(len(shown))
        end = self._last_end(self.partition)
        if end is not None:
            self._metrics.shown_lag.labels(partition=str(self.partition)).set(max(end - following.offset, 0))

    async def tick(self) -> None:
        """Nothing came: see whether Redis still has what was counted."""
        try:
            await self._checkpoint.verify()
        except ProgressMoved as error:
            raise StartOver(str(error)) from error

    async def close(self) -> None:
        """Nothing is held."""
        with suppress(KeyError):
            self._metrics.shown_lag.remove(str(self.partition))

    def _first_copies(self, records: Sequence[Consumed]) -> list[Shown]:
        shown: list[Shown] = []
        for record in records:
            try:
                decision = read_impression(record.value)
            except Unreadable:
                continue
            if self._seen.add(decision.impression_id, record.time_ms):
                shown.append(Shown(record.offset, record.time_ms, decision))
        return shown
