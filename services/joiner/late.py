"""Late reactions on their way to topic ``late-reactions``: each is written once.

The step that stores a late reaction in Redis lets it wait there. It is written in a transaction of the partition's
impressions, and with it goes, as an offset of topic ``reactions``, up to where all late reactions are written: those
that waited and those that were found when impressions were closed. So what Redis forgets and what is read again then is
known by its offset. It is sound because nothing is closed before all reactions up to that offset are in Redis again:
whatever is late below it had been found.
"""

from __future__ import annotations

from collections.abc import Mapping

from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.stream import Consumed, Offsets
from banditmesh.runtime.user_record import ANY_LOG
from services.joiner.checkpoint import Progress
from services.joiner.events import read_reaction
from services.joiner.ledger import LATE_AT_ONCE, Closed, Late, LateWritten


class LateReactions:
    """Of one partition.

    Attributes:
        written: Up to where they are written, as it is committed.
    """

    def __init__(self, partition: int, topics: Topics) -> None:
        self.written = LateWritten(ANY_LOG, 0)
        self._partition = partition
        self._topics = topics

    async def open(self, offsets: Offsets) -> None:
        """Read up to where they are written. Only exact after the old owner has been fenced."""
        found = await offsets.noted(self._topics.reactions, self._partition)
        if found is not None and found[1].isdecimal():
            self.written = LateWritten(int(found[1]), found[0])

    def waiting(self, closed: Closed) -> list[Consumed]:
        """Those that are to be written, as they stand in topic ``reactions``."""
        return [
            Consumed(self._topics.reactions, self._partition, each.offset, each.time_ms, _user_of(each), each.value)
            for each in closed.late
            if each.log != self.written.log or each.offset >= self.written.offset
        ]

    def is_ahead_of(self, progress: Progress) -> bool:
        """Whether Redis has to get reactions again that it has lost."""
        return progress.log == self.written.log and progress.offset < self.written.offset

    def following(self, closed: Closed) -> LateWritten:
        """Up to where they are written with a transaction that holds what was found."""
        assert closed.progress is not None
        if len(closed.late) < LATE_AT_ONCE:
            return LateWritten(closed.progress.log, closed.progress.offset)
        last = closed.late[-1]
        return LateWritten(last.log, last.offset + 1)

    def offsets(self, following: LateWritten) -> Mapping[tuple[str, int], tuple[int, str]]:
        """What is committed of it."""
        return {(self._topics.reactions, self._partition): (following.offset, str(following.log))}


def _user_of(late: Late) -> bytes:
    """The record's key; empty where another release stored what cannot be read here."""
    try:
        read = read_reaction(late.offset, late.time_ms, late.value)
    except Unreadable:
        return b""
    return b"" if read is None else read.decision.user_id.encode()
