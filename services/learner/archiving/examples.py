"""Topic ``examples`` as the archive takes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pyarrow as pa

from banditmesh.archive.layout import Folder, Kind
from banditmesh.archive.state import Mark
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.stream import Consumed
from services.learner.archiving.archiver import Piece
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.archiving.rows import Chunk, Row, by_folder, chunk, merged
from services.learner.examples import decode

IDLE_MARGIN_S = 60.0
"""How much later than a window after it an impression may be joined where the joiner says that nothing is due."""


class ExamplesFormat:
    """See `archiver.Format`. Takes what a learner takes: readable examples, each source once."""

    kind: Kind = "examples"

    def __init__(self, user_id: Callable[[str], str] | None, metrics: ArchiveMetrics, *, join_window_s: float) -> None:
        """
        Args:
            user_id: What stands for a user; None: the user's own id.
            join_window_s: How late impressions are joined.
        """
        self._user_id = user_id
        self._idle_ms = round((join_window_s + IDLE_MARGIN_S) * 1000)
        self._metrics = metrics

    def pieces(self, records: Sequence[Consumed], log: int, mark: Mark) -> list[Piece[Chunk | None]]:
        """See `archiver.Format`."""
        rows: list[Row] = []
        time_ms, shown_ms, sources = mark.time_ms, mark.shown_ms, dict(mark.sources)
        for record in records:
            # As in the learner's merge: a new leader's clock may lag behind the old one's.
            time_ms = max(time_ms, record.time_ms)
            try:
                example = decode(record.value, record.time_ms)
            except Unreadable as error:  # the learner makes a dead letter of it
                self._metrics.passed_over.labels(self.kind, error.reason).inc()
                continue
            if example is None:  # nothing was due, so all that was shown a window ago has been joined
                shown_ms = max(shown_ms, record.time_ms - self._idle_ms)
                continue
            shown_ms = max(shown_ms, example.joined.impression_time_ms)
            source = example.source
            known_log, last = sources.get(source.partition, (0, -1))
            if source.log and known_log not in (0, source.log):
                last = -1  # another log: its offsets start anew
            if source.offset <= last:
                self._metrics.passed_over.labels(self.kind, "duplicate").inc()
                continue
            sources[source.partition] = source.log or known_log, source.offset
            rows.append(Row(record.offset, time_ms, example))
        made = chunk(rows, log, records[0].partition, self._user_id) if rows else None
        size = made.rows.nbytes if made else 0
        return [Piece(records[-1].offset + 1, Mark(time_ms, shown_ms, sources), len(rows), size, made)]

    def merged(self, first: Piece[Chunk | None], second: Piece[Chunk | None]) -> Piece[Chunk | None]:
        """See `archiver.Format`."""
        chunks = [piece.body for piece in (first, second) if piece.body is not None]
        body = merged(chunks) if len(chunks) > 1 else next(iter(chunks), None)
        size = body.rows.nbytes if body else 0
        return Piece(second.end, second.mark, first.rows + second.rows, size, body)

    async def until_ms(self) -> Callable[[int], float]:
        """See `archiver.Format`: an example is all that there is to know of it."""
        return lambda partition: math.inf

    async def tables(
        self, pieces: Sequence[Piece[Chunk | None]], log: int, partition: int
    ) -> list[tuple[Folder, pa.Table]]:
        """See `archiver.Format`."""
        return list(by_folder([piece.body for piece in pieces if piece.body], self.kind))
