"""The loop: read, merge, learn."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.stream import Consumed
from services.learner.cohorts import NEAR_MS, Cohort, cohorts
from services.learner.examples import Received, columns, decode
from services.learner.merge import Cut, Merge, Record
from services.learner.metrics import LearnerMetrics
from services.learner.reader import Known, Reader
from services.learner.shard import LearningFailed, Shard

log = get_logger(__name__)

POLL_S = 0.2
AT_ONCE = 20_000
"""Examples after which a piece of work on the learning thread ends, so that a snapshot or a stop need not wait long."""
AT_ONCE_BEHIND = 2_000
"""The same for shards that catch up: the others wait for a piece of their work at most."""
RETRY_S = 1.0

OpenReader = Callable[[Known], AbstractAsyncContextManager[Reader]]
GiveUp = Callable[[Consumed, Unreadable], Awaitable[None]]
Restore = Callable[[Shard], Awaitable[None]]
Row = Record[Received]


class Learner:
    """Feeds every shard of this replica: those at the front from one reader, those that must catch up from another.

    ``learning`` is held while a piece of work changes shards; who holds it finds all of them whole and standing still,
    and whatever they refused safe in the dead letters.
    """

    def __init__(
        self,
        shards: Iterable[Shard],
        placements: frozenset[str],
        open_reader: OpenReader,
        give_up: GiveUp,
        restore: Restore,
        learning: asyncio.Lock,
        thread: ThreadPoolExecutor,
        clock: Clock,
        metrics: LearnerMetrics,
        *,
        stall_after_s: float,
    ) -> None:
        """
        Args:
            placements: All that mesh.yaml has, whoever learns them.
            open_reader: Opens the topic at given positions.
            give_up: Sends a record to the dead letters; returns when it is safe there.
            restore: Brings a shard back to its newest snapshot.
            learning: See the class; the publisher takes it too.
            thread: The one thread that touches shards.
            stall_after_s: A partition that has nothing more to read for so long is not waited for.
        """
        self._shards = list(shards)
        self._placements = placements
        self._open_reader = open_reader
        self._give_up = give_up
        self._restore = restore
        self._thread = thread
        self._clock = clock
        self._metrics = metrics
        self._stall_after_s = stall_after_s
        self._rewind = False
        self._given_up: dict[int, int] = {}
        """Partition → offset before which everything unreadable is in the dead letters."""
        self.learning = learning
        self.turned = asyncio.Condition()
        """Notified after each turn of the loop."""

    async def run(self) -> None:
        """Learn until cancelled. Raises nothing that a later attempt could mend."""
        if not self._shards:
            log.warning("no model belongs to this learner: there are more learners than models")
            await asyncio.Event().wait()
        while True:
            self._rewind = False
            together = cohorts(self._shards)
            for cohort in together[1:]:
                log.info("shards catch up apart from the others", shards=[shard.id for shard in cohort.shards])
            async with asyncio.TaskGroup() as group:
                for cohort in together:
                    group.create_task(self._keep_following(cohort, together[0]))

    def rewind(self) -> None:
        """Read anew from where the shards stand. Call it while ``learning`` is held."""
        self._rewind = True

    async def _keep_following(self, cohort: Cohort, front: Cohort) -> None:
        """Learn until all cohorts must be formed anew."""
        while not self._rewind:
            try:
                async with self._open_reader(cohort.known()) as reader:
                    await self._follow(reader, cohort, front)
            except Unavailable as error:
                outages.failed(_work(cohort), error)
                await self._clock.sleep(RETRY_S)

    async def _follow(self, reader: Reader, cohort: Cohort, front: Cohort) -> None:
        """Learn from this reader until it must be opened anew."""
        async with self.learning:
            for shard in cohort.shards:
                shard.adopt(reader.logs)
            self._note_given_up(reader)
        merge: Merge[Received] = Merge(reader.positions)
        heard_s = dict.fromkeys(reader.positions, self._clock.monotonic_s())
        lost = 0
        while not self._rewind:
            for partition, consumed in (await reader.read(merge.wanted(), POLL_S)).items():
                heard_s[partition] = self._clock.monotonic_s()
                merge.add(partition, await self._rows(consumed, cohort))
            outages.well(_work(cohort))
            await self._release_silent(merge, reader, heard_s)
            enough = AT_ONCE_BEHIND if cohort.behind else AT_ONCE
            while (cut := merge.take(enough)) is not None:
                if not await self._apply(cut, cohort):
                    return
                if not cohort.behind:
                    reader.report(cut.positions)
            self._metrics.lost.inc(reader.lost - lost)
            lost = reader.lost
            if not cohort.behind:
                self._show(merge, reader)
            elif front.watermark_ms - cohort.watermark_ms <= NEAR_MS:
                log.info("shards have caught up", shards=[shard.id for shard in cohort.shards])
                self._rewind = True
            async with self.turned:
                self.turned.notify_all()
            if reader.grown():
                log.warning("the topic has other partitions than before", read=sorted(reader.positions))
                return

    def _note_given_up(self, reader: Reader) -> None:
        """What any shard stands behind was read before, and what of it nobody could read is in the dead letters."""
        self._given_up = {
            partition: max(
                (
                    shard.offsets.get(partition, 0)
                    for shard in self._shards
                    if shard.logs.get(partition, 0) in (0, log_)
                ),
                default=0,
            )
            for partition, log_ in reader.logs.items()
        }

    async def _rows(self, consumed: Sequence[Consumed], cohort: Cohort) -> list[Row]:
        """Records of a partition for the merge; one that nobody can read is a dead letter before it counts as read."""
        rows: list[Row] = []
        partition = consumed[0].partition
        given_up = self._given_up.get(partition, 0)
        for each in consumed:
            example: Received | None = None
            first_time = each.offset >= given_up
            try:
                example = decode(each.value, each.time_ms)
            except Unreadable as error:
                if each.offset >= self._given_up.get(partition, 0):  # another cohort may have been here meanwhile
                    await self._dead_letter(each, error)
                    self._given_up[partition] = each.offset + 1
            if example is not None:
                placement = example.placement
                if first_time and placement not in self._placements:
                    self._metrics.unknown_placement.inc()
                if placement not in cohort.by_placement:
                    example = None
            rows.append(Record(each.time_ms, partition, each.offset, example))
        self._given_up[partition] = max(self._given_up.get(partition, 0), consumed[-1].offset + 1)
        return rows

    async def _dead_letter(self, consumed: Consumed, error: Unreadable) -> None:
        self._metrics.dead_letters.labels(reason=error.reason).inc()
        log.warning("dead letter", partition=consumed.partition, offset=consumed.offset, reason=str(error))
        await self._give_up(consumed, error)

    async def _release_silent(self, merge: Merge[Received], reader: Reader, heard_s: dict[int, float]) -> None:
        """Stop waiting for partitions in which, by the broker's own word, nothing has happened for long.

        A partition whose broker does not answer is waited for: going on without it would change the order.
        """
        now_s = self._clock.monotonic_s()
        released = merge.released
        for partition, since_s in heard_s.items():
            if partition in released or now_s - since_s < self._stall_after_s:
                continue
            heard_s[partition] = now_s
            if await reader.is_at_end(partition):
                log.warning("partition is silent and not waited for", partition=partition, silent_s=now_s - since_s)
                merge.release(partition)

    async def _apply(self, cut: Cut[Received], cohort: Cohort) -> bool:
        """Whether the cut is learned; False: the shards do not stand where it begins, or ends."""
        async with self.learning:
            if self._rewind:
                return False
            loop = asyncio.get_running_loop()
            with self._metrics.learn.time():
                refused, failed = await loop.run_in_executor(self._thread, self._learn, cut, cohort)
            for record, error in refused:
                await self._dead_letter(record, error)
            for failure in failed:
                log.error(
                    "learning failed; the model is restored and the example looked for",
                    shard=failure.shard.id,
                    exc_info=failure.__cause__,
                )
                await self._restore(failure.shard)
                failure.shard.suspects = failure.rows
                self._rewind = True
        if cut.out_of_order:
            self._metrics.out_of_order.inc(cut.out_of_order)
            log.warning("records came after their turn", records=cut.out_of_order)
        if not cohort.behind:
            self._metrics.watermark.set(cut.watermark_ms / 1000)
        return not failed

    def _learn(
        self, cut: Cut[Received], cohort: Cohort
    ) -> tuple[list[tuple[Consumed, Unreadable]], list[LearningFailed]]:
        """On the learning thread: all shards take in all buckets, then note where they stand.

        Returns:
            The examples that a policy refused, and the failures of shards that must be restored.
        """
        refused: list[tuple[Consumed, Unreadable]] = []
        failed: dict[Shard, LearningFailed] = {}
        for bucket in cut.buckets:
            of_placement: dict[str, list[Row]] = defaultdict(list)
            for record in bucket:
                if record.body is not None:
                    of_placement[record.body.placement].append(record)
            for placement, rows in of_placement.items():
                batch = columns([(row.partition, row.offset, row.body) for row in rows if row.body is not None])
                for shard in cohort.by_placement[placement]:
                    if shard in failed:
                        continue
                    before = shard.duplicates
                    try:
                        learned = shard.learn(batch)
                    except LearningFailed as failure:
                        failed[shard] = failure
                        continue
                    self._metrics.applied.labels(*shard.id).inc(learned.applied)
                    self._metrics.duplicates.labels(*shard.id).inc(shard.duplicates - before)
                    refused += [_refused(rows[at], shard, reason) for at, reason in learned.refused]
        for shard in cohort.shards:
            if shard not in failed:
                shard.advance(cut.positions, cut.watermark_ms)
        return refused, list(failed.values())

    def _show(self, merge: Merge[Received], reader: Reader) -> None:
        self._metrics.buffered.set(merge.buffered)
        self._metrics.stalled.set(len(merge.released))
        for partition, lag in reader.lag().items():
            self._metrics.lag.labels(partition=partition).set(lag)


def _work(cohort: Cohort) -> str:
    return f"examples for {'/'.join(cohort.shards[0].id)}"


def _refused(row: Row, shard: Shard, reason: str) -> tuple[Consumed, Unreadable]:
    """The record of an example that a policy refused, and why."""
    assert row.body is not None
    record = Consumed(
        "examples",
        row.partition,
        row.offset,
        row.time_ms,
        row.body.decision.user_id.encode(),
        row.body.example.SerializeToString(deterministic=True),
    )
    return record, Unreadable("refused_by_policy", f"{shard.id.placement}/{shard.id.model}: {reason}")
