"""The records of a batch of users, read together into flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime.user_record import (
    CLICKS,
    COUNTERS,
    COUNTS,
    DAY_S,
    ENTRY_BYTES,
    HEAD_BYTES,
    MARK,
    MOST_A_DAY,
    MUTES,
    SHOWN,
    SHOWN_DAYS,
    SHOWN_SERVICES,
    TARGETS,
    TASTE,
    TASTE_BITS,
    BadRecord,
    Section,
    parts_of,
)

Entries = tuple[NDArray[np.int64], NDArray[np.void]]
_Spans = Mapping[int, slice]
"""Where each section is, by :func:`_key`."""
_NOTHING: Final[tuple[bytes, _Spans]] = (b"", {})
_UNKNOWN: Final[tuple[int, _Spans]] = (-1, {})
_MOST_TABLES: Final = 4096
_TABLES: Final[dict[bytes, tuple[int, _Spans]]] = {}
"""What a head and a table say: the size of the whole, and its sections. Records that are full, and those of users
of whom little is known, are alike: few tables are in most records."""
_LAST_COUNTER: Final = max(COUNTERS.values())


class UserRecords:
    """The records of ``n`` users, flat: each section is an array of entries and an array of the entries' users.

    A section is read when it is first asked for, so one that nobody asks for costs nothing. None, or a value
    that is no user record, is an empty record.

    Attributes:
        click_owners, click_events: ``int64[n_clicks]`` and ``EVENT[n_clicks]``, each user's newest first.
        mute_owners, mute_events: ``int64[n_mutes]`` and ``EVENT[n_mutes]``.
        taste_owners, taste: ``int64[n_taste]`` and ``user_record.TASTE.dtype[n_taste]``: what the user did with each of
            the contents reacted to last, each once, the newest first; empty where the mesh does not need it.
        target_owners, target_events: ``int64[n_targets]`` and ``EVENT[n_targets]``.
        shown_owners, shown_contents: ``int64[n_shown]`` and ``user_record.SHOWN.dtype[n_shown]``: what the user was
            shown of late, each content once.
        shown_service_owners, shown_services: ``int64[n]`` and ``user_record.SHOWN_SERVICES.dtype[n]``: of which
            services the user was shown something of late, each service once.
        feedback, clicks, mutes, shown: ``int64[n_users]``: reactions, clicks, mutes, impressions ever.
    """

    __slots__ = ("_counts", "_known", "_opened")

    def __init__(self, values: Sequence[bytes | None]) -> None:
        """``values``: as they stand in Redis, one a user."""
        self._known: dict[int, Entries] = {}
        self._counts: NDArray[np.int64] | None = None
        self._opened = _opened(values)

    def __len__(self) -> int:
        return len(self._opened)

    def entries(self, section: Section) -> Entries:
        """``int64[n]``, the user of each entry of a section, and ``section.dtype[n]``, the entries."""
        known = self._known.get(section.number)
        if known is None:
            key, having, parts = _key(section), [], []
            for owner, (value, spans) in enumerate(self._opened):
                span = spans.get(key)
                if span is not None:
                    having.append(owner)
                    parts.append(value[span])
            owners = np.array(having, np.int64)
            entries = np.frombuffer(b"".join(parts), section.dtype)
            if len(entries) != len(parts):
                owners = owners.repeat([len(part) // section.dtype.itemsize for part in parts])
            known = self._known[section.number] = owners, entries
        return known

    def count(self, counter: str) -> NDArray[np.int64]:
        """``int64[n_users]``: a counter of ``user_record.COUNTERS``."""
        if self._counts is None:
            owners, counts = self.entries(COUNTS)
            numbers = counts["counter"]
            ours = numbers <= _LAST_COUNTER
            self._counts = np.zeros((_LAST_COUNTER + 1, len(self)), np.int64)
            self._counts[numbers[ours], owners[ours]] = counts["value"][ours]
        of_users: NDArray[np.int64] = self._counts[COUNTERS[counter]]
        return of_users

    def shown_today(self, now_s: float) -> NDArray[np.int64]:
        """``int64[n_users]``: impressions since midnight UTC, of the services that the record remembers."""
        owners, services = self.entries(SHOWN_SERVICES)
        counts = np.where(services["day"] == int(now_s // DAY_S), services["count"], 0)
        return np.bincount(owners, counts, len(self)).astype(np.int64)

    def clicked(self) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint32]]:
        """``int64[n]``, ``uint64[n]``, ``uint32[n]``: owner, content and time in seconds of each click that is
        remembered, in either section."""
        owners, clicks = self.entries(CLICKS)
        of_taste, taste = self.entries(TASTE)
        if not len(taste):
            return owners, clicks["content"], clicks["time_s"]
        did = taste["did"] & TASTE_BITS["click"] != 0
        return (
            np.concatenate([owners, of_taste[did]]),
            np.concatenate([clicks["content"], taste["content"][did]]),
            np.concatenate([clicks["time_s"], taste["time_s"][did]]),
        )

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
    taste_owners = property(lambda self: self.entries(TASTE)[0])
    taste = property(lambda self: self.entries(TASTE)[1])
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


def _opened(values: Sequence[bytes | None]) -> list[tuple[bytes, _Spans]]:
    """Each user's sections: the bytes that they are in, and where in them. A loop over users that looks at nothing but
    the tables, and takes apart only those that it does not know."""
    opened = []
    for value in values:
        if not value:
            opened.append(_NOTHING)
            continue
        table = value[: HEAD_BYTES + ENTRY_BYTES * value[1]] if len(value) > 1 else value
        size, spans = _TABLES.get(table, _UNKNOWN)
        opened.append((value, spans) if size == len(value) else _open(value, table))
    return opened


def _open(value: bytes, table: bytes) -> tuple[bytes, _Spans]:
    """The same of one value, which may be in the old format or no user record (the joiner, which owns the record, says
    so and begins it anew)."""
    try:
        parts = parts_of(value)
    except BadRecord:
        return _NOTHING
    is_old = value[7:8] != MARK
    at, spans = 0 if is_old else len(table), {}
    for number, version, data in parts:
        spans[number | version << 8] = slice(at, at + len(data))
        at += len(data)
    if is_old:
        return b"".join([data for _, _, data in parts]), spans
    if len(_TABLES) == _MOST_TABLES:
        _TABLES.clear()
    _TABLES[table] = len(value), spans
    return value, spans


def _key(section: Section) -> int:
    return section.number | section.version << 8
