"""A topic that never ends, for a learner that is fed out of memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Endless:
    """What a `reader.Reader` says of its log, but for its records: its end is never reached, nothing lags."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.positions = dict.fromkeys(partitions, 0)
        self.logs = {partition: 100 + partition for partition in self.positions}
        self.lost = 0

    async def is_at_end(self, partition: int) -> bool:
        """See `Reader.is_at_end`."""
        return False

    def lag(self) -> Mapping[int, int]:
        """See `Reader.lag`."""
        return {}

    def grown(self) -> bool:
        """See `Reader.grown`."""
        return False

    def report(self, positions: Mapping[int, int]) -> None:
        """See `Reader.report`."""
