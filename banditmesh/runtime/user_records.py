"""The records of a batch of users, read together into flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime.user_record import (
    CLICKS,
    COUNTERS,
    COUNTS,
    DAY_S,
    ENTRY_BYTES,
    FORMAT,
    HEAD_BYTES,
    MARK,
    MOST_A_DAY,
    MUTES,
    SHOWN,
    SHOWN_DAYS,
    SHOWN_SERVICES,
    TARGETS,
    Section,
    repacked,
)

Entries = tuple[NDArray[np.int64], NDArray[np.void]]
_NO_OWNERS: Final = np.zeros(0, np.int64)
_LAST_COUNTER: Final = max(COUNTERS.values())


class UserRecords:
    """The records of ``n`` users, flat: each section is an array of entries and an array of the entries' users.

    A section is taken apart when it is first asked for, so one that nobody asks for costs nothing. None, or a value
    that is no user record, is an empty record.

    Attributes:
        click_owners, click_events: ``int64[n_clicks]`` and ``EVENT[n_clicks]``, each user's newest first.
        mute_owners, mute_events: ``int64[n_mutes]`` and ``EVENT[n_mutes]``.
        target_owners, target_events: ``int64[n_targets]`` and ``EVENT[n_targets]``.
        shown_owners, shown_contents: ``int64[n_shown]`` and ``user_record.SHOWN.dtype[n_shown]``: what the user was
            shown of late, each content once.
        shown_service_owners, shown_services: ``int64[n]`` and ``user_record.SHOWN_SERVICES.dtype[n]``: of which
            services the user was shown something of late, each service once.
        feedback, clicks, mutes, shown: ``int64[n_users]``: reactions, clicks, mutes, impressions ever.
    """

    __slots__ = ("_buffer", "_counts", "_known", "_n", "_table")

    def __init__(self, values: Sequence[bytes | None]) -> None:
        """``values``: as they stand in Redis, one a user."""
        self._n = len(values)
        self._known: dict[int, Entries] = {}
        self._counts: NDArray[np.int64] | None = None
        self._buffer, self._table = _table(values)

    def __len__(self) -> int:
        return self._n

    def entries(self, section: Section) -> Entries:
        """``int64[n]``, the user of each entry of a section, and ``section.dtype[n]``, the entries."""
        known = self._known.get(section.number)
        if known is None:
            table, size = self._table, section.dtype.itemsize
            found = np.flatnonzero((table.numbers == section.number) & (table.versions == section.version))
            if not len(found):
                known = self._known[section.number] = _NO_OWNERS, np.empty(0, section.dtype)
                return known
            begins, lengths = table.begins[found], table.sizes[found] // size
            if len(found) == 1:  # most often a batch of one: half of the time of what comes below
                begin, length = int(begins[0]), int(lengths[0])
                data = self._buffer[begin : begin + length * size].view(section.dtype)
                known = self._known[section.number] = np.full(length, table.owners[found[0]]), data
                return known
            owners = table.owners[found].repeat(lengths)
            ends = np.cumsum(lengths * size)
            at = np.arange(ends[-1]) + (begins - ends + lengths * size).repeat(lengths * size)
            known = self._known[section.number] = owners, self._buffer[at].view(section.dtype)
        return known

    def count(self, counter: str) -> NDArray[np.int64]:
        """``int64[n_users]``: a counter of ``user_record.COUNTERS``."""
        if self._counts is None:
            owners, counts = self.entries(COUNTS)
            numbers = counts["counter"]
            ours = numbers <= _LAST_COUNTER
            self._counts = np.zeros((_LAST_COUNTER + 1, self._n), np.int64)
            self._counts[numbers[ours], owners[ours]] = counts["value"][ours]
        of_users: NDArray[np.int64] = self._counts[COUNTERS[counter]]
        return of_users

    def shown_today(self, now_s: float) -> NDArray[np.int64]:
        """``int64[n_users]``: impressions since midnight UTC, of the services that the record remembers."""
        owners, services = self.entries(SHOWN_SERVICES)
        counts = np.where(services["day"] == int(now_s // DAY_S), services["count"], 0)
        return np.bincount(owners, counts, len(self)).astype(np.int64)

    feedback = property(lambda self: self.count("feedback"))
    clicks = property(lambda self: self.count("clicks"))
    mutes = property(lambda self: self.count("mutes"))
    shown = property(lambda self: self.count("shown"))
    click_owners = property(lambda self: self.entries(CLICKS)[0])
    click_events = property(lambda self: self.entries(CLICKS)[1])
    mute_owners = property(lambda self: self.entries(MUTES)[0])
    mute_events = property(lambda self: self.entries(MUTES)[1])
    target_owners = property(lambda self: self.entries(TARGETS)[0])
    target_events = property(lambda self: self.entries(TARGETS)[1])
    shown_owners = property(lambda self: self.entries(SHOWN)[0])
    shown_contents = property(lambda self: self.entries(SHOWN)[1])
    shown_service_owners = property(lambda self: self.entries(SHOWN_SERVICES)[0])
    shown_services = property(lambda self: self.entries(SHOWN_SERVICES)[1])


def shows_within(shown: NDArray[np.void], days: int, now_s: float) -> NDArray[np.int64]:
    """``int64[n]``: how often each content was shown on the last UTC days, today included.

    Args:
        shown: ``user_record.SHOWN.dtype[n]``.
        days: 1 to ``user_record.SHOWN_DAYS``.
        now_s: The present, seconds since the Unix epoch.
    """
    age = int(now_s // DAY_S) - shown["day"].astype(np.int64)
    counted = shown["days"].astype(np.int64)
    total = np.zeros(len(shown), np.int64)
    for back in range(SHOWN_DAYS):  # days, not contents
        total += np.where(age + back < days, counted >> 4 * back & MOST_A_DAY, 0)
    return total


STATE_FEATURES: Final[Mapping[str, Callable[[UserRecords, float], NDArray[np.int64]]]] = {
    "feedback": lambda records, now_s: records.count("feedback"),
    "clicks": lambda records, now_s: records.count("clicks"),
    "mutes": lambda records, now_s: records.count("mutes"),
    "shown": lambda records, now_s: records.count("shown"),
    "shown_today": UserRecords.shown_today,
}
"""What ``features.state`` may name: ``int64[n_users]`` out of the records at a moment in seconds since the Unix
epoch."""


class _Table(NamedTuple):
    """Where each section of each record stands: ``int64[n_sections]`` each."""

    owners: NDArray[np.int64]
    numbers: NDArray[np.int64]
    versions: NDArray[np.int64]
    begins: NDArray[np.int64]
    sizes: NDArray[np.int64]


def _table(values: Sequence[bytes | None]) -> tuple[NDArray[np.uint8], _Table]:
    """All values behind each other, ``uint8[n_bytes]``, and the sections in them."""
    present = [value if value and value[7:8] == MARK and value[0] == FORMAT else repacked(value) for value in values]
    buffer = np.frombuffer(b"".join(present), np.uint8)
    lengths = np.fromiter(map(len, present), np.int64, len(present))
    starts = np.cumsum(lengths) - lengths
    n = buffer[starts + 1].astype(np.int64)
    n[lengths < HEAD_BYTES + n * ENTRY_BYTES] = 0
    firsts = np.cumsum(n) - n
    owners = np.arange(len(values)).repeat(n)
    entries = starts[owners] + HEAD_BYTES + ENTRY_BYTES * (np.arange(len(owners)) - firsts[owners])
    sizes = buffer[entries + 2] + (buffer[entries + 3].astype(np.int64) << 8)
    before = np.cumsum(sizes) - sizes
    begins = starts[owners] + HEAD_BYTES + ENTRY_BYTES * n[owners] + before - before[firsts[owners]]
    whole = HEAD_BYTES + ENTRY_BYTES * n + np.bincount(owners, sizes, len(values)) == lengths
    ours = whole[owners]
    table = _Table(owners, buffer[entries], buffer[entries + 1], begins, sizes)
    return buffer, table if ours.all() else _Table(*(column[ours] for column in table))
