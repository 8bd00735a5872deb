"""The loop: read, keep for a while, write files, say that they are complete.

Each partition goes its own way. What it is at is in the store alone (`banditmesh.archive.state`), so a process that
dies at any moment loses nothing and doubles nothing:

- before a range is begun: the rows are read again, and may be cut into ranges otherwise;
- after it is begun, with none, some or all of its files written: whoever goes on reads the same offsets again and
  writes files of the same names, of which those that are there stay;
- after it is complete: reading goes on behind it.

Whoever is superseded, because it was stopped and continued or because two believe to be the same one, fails to change
the state, and reads it again. Where the store was put back under it, a file of a range that nobody has begun may be
left: before a folder is written to, it is looked at for such rows (`banditmesh.archive.present`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import pyarrow as pa

from banditmesh.archive.forgotten import forgotten, without
from banditmesh.archive.layout import Folder, Kind, Range
from banditmesh.archive.parquet import encode
from banditmesh.archive.present import ranges_beyond, without_ranges
from banditmesh.archive.state import Held, Mark, State, States
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Aborted, AlreadyExists, MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.memory import give_back
from banditmesh.runtime.outages import outages
from banditmesh.runtime.store import Store
from banditmesh.runtime.stream import Consumed
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.reader import Known, Reader

log = get_logger(__name__)

POLL_S = 0.5
RETRY_FIRST_S, RETRY_MOST_S = 1.0, 30.0
MOST_BYTES = 96 << 20
"""Of waiting rows; when there are more, they are written before their time."""
SURE_FOR_S = 10.0
"""After so long since a range was begun, it is asked again whether it is still ours before a file is written: a process
that was stopped for an hour must not bring back files that were compacted or erased meanwhile."""

MOST_FOLDERS_KNOWN = 1000
"""Hours of placements of which it is remembered what was there before."""

MOST_ROWS_OF_A_PIECE = 8192
"""Pieces that have more are not merged any more."""

T = TypeVar("T")
OpenReader = Callable[[Callable[[Mapping[int, int]], Known]], AbstractAsyncContextManager[Reader]]


@dataclass(frozen=True)
class Piece(Generic[T]):
    """Consecutive records of a partition.

    Attributes:
        end: The offset after the last one.
        mark: What is known of the partition after them.
        rows: How many rows they make.
        size: Bytes of memory, about.
        body: What the format makes of them.
    """

    end: int
    mark: Mark
    rows: int
    size: int
    body: T


class Format(Protocol[T]):
    """How records of a topic become rows."""

    kind: Kind

    def pieces(self, records: Sequence[Consumed], log: int, mark: Mark) -> list[Piece[T]]:
        """What some records of a partition make, behind that mark."""
        ...

    def merged(self, first: Piece[T], second: Piece[T]) -> Piece[T] | None:
        """Two consecutive pieces as one; None: they stay apart."""
        ...

    async def until_ms(self) -> Callable[[int], float]:
        """For each partition, the broker time up to which records can be made into rows now. Raises the store's
        errors."""
        ...

    async def tables(self, pieces: Sequence[Piece[T]], log: int, partition: int) -> list[tuple[Folder, pa.Table]]:
        """The rows of pieces, by folder: the same for the same records. Raises the store's errors."""
        ...


@dataclass
class _Partition(Generic[T]):
    """What waits, the state that it comes after, and what stood behind that state when a folder was first looked at."""

    number: int
    log: int
    held: Held
    pieces: list[Piece[T]] = field(default_factory=list)
    beyond: dict[Folder, tuple[Range, ...]] = field(default_factory=dict)

    @property
    def state(self) -> State:
        return self.held.state

    @property
    def end(self) -> int:
        """The offset that is read next."""
        return self.pieces[-1].end if self.pieces else self.state.next

    @property
    def mark(self) -> Mark:
        return self.pieces[-1].mark if self.pieces else self.state.mark

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)


class Archiver(Generic[T]):
    """Archives the partitions of one topic that belong to this process."""

    def __init__(
        self,
        rows: Format[T],
        store: Store,
        open_reader: OpenReader,
        clock: Clock,
        metrics: ArchiveMetrics,
        *,
        flush_every_s: float,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """``open_reader``: opens the topic at the positions that the given function tells for its logs."""
        self._format = rows
        self._store = store
        self._states = States(store, rows.kind)
        self._open_reader = open_reader
        self._clock = clock
        self._metrics = metrics
        self._flush_every_s = flush_every_s
        self._most_bytes = most_bytes
        self._partitions: dict[int, _Partition[T]] = {}
        self._flushing = asyncio.Lock()
        self._refused = False
        """Whether the last attempt to write has failed."""
        self._work = outages.work(f"archive of {rows.kind}")
        self._reading = outages.work(f"reading for the archive of {rows.kind}")

    async def run(self) -> None:
        """Archive until cancelled. Raises nothing that a later attempt could mend."""
        pause_s = RETRY_FIRST_S
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await self._follow()
            except Aborted as error:
                log.warning("somebody else archives this; looking where it stands", reason=str(error))
                self._metrics.failures.labels(self._format.kind, "superseded").inc()
            except MeshError as error:
                (self._reading if error.dependency == "kafka" else self._work).failed(error)
                self._metrics.failures.labels(self._format.kind, error.reason.lower()).inc()
            if self._clock.monotonic_s() - began_s > RETRY_MOST_S:
                pause_s = RETRY_FIRST_S
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)

    async def flush(self) -> None:
        """Write what waits, as far as it can be written. Raises the store's errors, and Aborted."""
        async with self._flushing:
            until_ms = await self._format.until_ms()
            for partition in self._partitions.values():
                await self._flush(partition, until_ms(partition.number))
            self._show()

    async def close(self) -> None:
        """Write what waits, so that the next one need not read it again; that it fails harms nobody."""
        try:
            await self.flush()
        except MeshError as error:
            log.warning("what waits is not archived yet; the next start does it", reason=str(error))

    async def _follow(self) -> None:
        """Archive until the reader must be opened anew."""
        self._partitions = {}
        states = await self._states.all()
        async with self._open_reader(lambda logs: _positions(logs, states)) as reader:
            for number, log_ in reader.logs.items():
                if number in reader.positions:
                    self._partitions[number] = await self._take_over(number, log_, reader.positions[number])
            if not self._refused:  # looking where it stands says nothing of whether it may write
                self._work.well()
            lost, due_s = reader.lost, self._clock.monotonic_s() + self._flush_every_s
            while not reader.grown():
                waiting = sum(partition.size for partition in self._partitions.values())
                # A range that was begun is needed as a whole, whatever its size.
                wanted = [
                    number
                    for number, partition in self._partitions.items()
                    if waiting < self._most_bytes or (partition.state.is_begun and not self._redoable(partition))
                ]
                if wanted:
                    self._add(await reader.read(wanted, POLL_S))
                    self._reading.well()
                    if reader.lost > lost:
                        raise Aborted("retention has overtaken the archive", field="topic", value=self._format.kind)
                else:
                    await self._clock.sleep(POLL_S)
                now_s = self._clock.monotonic_s()
                redone = any(self._redoable(partition) for partition in self._partitions.values())
                if now_s >= due_s or waiting >= self._most_bytes or redone:
                    self._refused = True
                    await self.flush()
                    self._refused = False
                    self._work.well()
                    reader.report({number: each.state.next for number, each in self._partitions.items()})
                    await asyncio.to_thread(give_back)
                    due_s = now_s + self._flush_every_s

    def _redoable(self, partition: _Partition[T]) -> bool:
        """Whether all of a range is here that another process has begun."""
        return partition.state.is_begun and partition.end >= partition.state.begun

    async def _take_over(self, number: int, log_: int, position: int) -> _Partition[T]:
        """The partition as the store has it, or as it begins."""
        held = await self._states.get(log_, number)
        if held is None:
            held = await self._states.put(log_, number, State(position, position, position), None)
        elif position > held.state.next:
            log.error(
                "Kafka has forgotten what was not archived yet: it is lost to the archive",
                topic=self._format.kind,
                partition=number,
                offsets=f"{held.state.next} to {position - 1}",
                hint="let the topic keep its records longer than the archiver may be away (retention.ms)",
            )
            self._metrics.lost.labels(self._format.kind).inc(position - held.state.next)
            now_ms = int(self._clock.now_s() * 1000)
            held = await self._states.put(log_, number, held.state.skip(position, now_ms), held)
        elif position < held.state.next:
            log.error(
                "the log ends before what was archived of it: Kafka has lost acknowledged records; going on with what "
                "has come since",
                topic=self._format.kind,
                partition=number,
                archived=held.state.next,
                position=position,
            )
            held = await self._states.put(log_, number, held.state.go_back(position), held)
        return _Partition(number, log_, held)

    def _add(self, found: Mapping[int, Sequence[Consumed]]) -> None:
        for number, records in found.items():
            partition = self._partitions[number]
            begun = partition.state.begun if partition.state.is_begun else 0
            for part in (
                [each for each in records if each.offset < begun],
                [each for each in records if each.offset >= begun],
            ):
                if part:
                    partition.pieces += self._format.pieces(part, partition.log, partition.mark)
                    self._merge(partition.pieces, begun)

    def _merge(self, pieces: list[Piece[T]], begun: int) -> None:
        """Merge the last pieces, but for those between which a range ends that is begun. Where little comes, a read
        brings a few rows, whose columns take more memory than what is in them: 27 000 examples that came eleven at a
        time took 75 MB apart and 46 MB merged. A piece is merged with one of its size or half of it, so a row is copied
        a logarithm of times."""
        while len(pieces) > 1:
            first, second = pieces[-2:]
            if first.rows > 2 * second.rows or first.rows + second.rows > MOST_ROWS_OF_A_PIECE:
                return
            if first.end <= begun < second.end or (merged := self._format.merged(first, second)) is None:
                return
            pieces[-2:] = [merged]

    async def _flush(self, partition: _Partition[T], until_ms: float) -> None:
        ready = 0
        while ready < len(partition.pieces) and partition.pieces[ready].mark.time_ms <= until_ms:
            ready += 1
        state = partition.state
        if state.is_begun:
            inside = [piece for piece in partition.pieces[:ready] if piece.end <= state.begun]
            if not inside or inside[-1].end < state.begun:
                return
            await self._write(partition, len(inside))
            ready -= len(inside)
        if ready:
            await self._write(partition, ready)

    async def _write(self, partition: _Partition[T], n: int) -> None:
        """Archive the first n pieces as one range, or as the rest of the one that is begun."""
        pieces, state = partition.pieces[:n], partition.state
        part = Range(partition.log, partition.number, state.next, pieces[-1].end)
        tables = await self._format.tables(pieces, partition.log, partition.number)
        if not state.is_begun:
            state = state.begin(part.end, pieces[-1].mark)
            if tables:
                await self._change(partition, state)
        sure_s = self._clock.monotonic_s()
        # Asked once the range is begun: whoever erases a user waits for the ranges that are begun when it notes that.
        gone = await forgotten(self._store) if tables else {}
        for folder, table in tables:
            rows = await self._missing(partition, folder, part, without(table, gone, self._format.kind))
            if self._clock.monotonic_s() - sure_s > SURE_FOR_S:
                await self._make_sure(partition)
                sure_s = self._clock.monotonic_s()
            if len(rows):
                await self._put(folder, part, rows)
        await self._change(partition, state.complete())
        del partition.pieces[:n]
        if tables:
            log.info("archived", kind=self._format.kind, partition=part.partition, end=part.end, files=len(tables))

    async def _missing(self, partition: _Partition[T], folder: Folder, part: Range, rows: pa.Table) -> pa.Table:
        """The rows that stand in no other file."""
        beyond = partition.beyond.get(folder)
        if beyond is None:
            if len(partition.beyond) >= MOST_FOLDERS_KNOWN:
                partition.beyond.clear()
            beyond = await ranges_beyond(self._store, folder, part.log, part.partition, part.start)
            partition.beyond[folder] = beyond
        return without_ranges(rows, beyond, folder.kind, partition.state.again) if beyond else rows

    async def _put(self, folder: Folder, part: Range, rows: pa.Table) -> None:
        with self._metrics.write.time():
            body = await asyncio.to_thread(lambda: encode(rows).to_pybytes())
            try:
                await self._store.put_new(folder.prefix + part.file_name(folder.kind), body)
            except AlreadyExists:
                return
        self._metrics.rows.labels(folder.kind, folder.placement).inc(len(rows))
        self._metrics.files.labels(folder.kind).inc()
        self._metrics.bytes.labels(folder.kind).inc(len(body))

    async def _change(self, partition: _Partition[T], state: State) -> None:
        partition.held = await self._states.put(partition.log, partition.number, state, partition.held)

    async def _make_sure(self, partition: _Partition[T]) -> None:
        found = await self._states.get(partition.log, partition.number)
        if found is None or found.etag != partition.held.etag:
            raise Aborted("somebody else archives this partition", field="partition", value=partition.number)

    def _show(self) -> None:
        kind = self._format.kind
        for partition in self._partitions.values():
            self._metrics.until.labels(kind, partition.number).set(partition.state.mark.time_ms / 1000)
        self._metrics.waiting.labels(kind).set(
            sum(piece.rows for partition in self._partitions.values() for piece in partition.pieces)
        )


def _positions(logs: Mapping[int, int], states: Mapping[tuple[int, int], State]) -> Known:
    return {number: [(states[log_, number].next, log_)] for number, log_ in logs.items() if (log_, number) in states}
