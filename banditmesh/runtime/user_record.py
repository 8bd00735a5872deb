"""The user record: everything that the joiner keeps of a user, as named sections behind one Redis key.

=========  =============================================================================================================
header     ``u8 format`` (2), ``u8 n`` sections, 5 zero bytes, ``u8 0xB5``
table      ``n`` x (``u8 number``, ``u8 version``, ``u16 bytes``)
sections   one after the other, in the order of the table; each is an array of its section's dtype, newest entry first
=========  =============================================================================================================

All numbers are little-endian. A section that this program does not know, or knows in another version, was written by
another release: it is passed over when the record is read and kept byte for byte when the record is written. So a new
section needs no change where the others are read, and two releases can write one record in turns.

Before there were sections, a value was a header of 24 bytes and the clicks and mutes behind it; its last byte of the
first eight is never 0xB5, by which it is told apart, and read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

DAY_S: Final = 86_400
SHOWN_DAYS: Final = 8
"""Days that the impressions of a content are counted for, one by one; today is one of them."""
MOST_A_DAY: Final = 15
"""A day's count of one content stops here."""

EVENT: Final = np.dtype([("time_s", "<u4"), ("content", "<u8"), ("service", "<u8"), ("placement", "<u8")])


@dataclass(frozen=True)
class Section:
    """One named part of a record.

    Attributes:
        number: Its number in the table; never used again for another section.
        version: Of its dtype.
        dtype: Of one entry.
        most: Entries kept at most; the oldest are dropped.
    """

    name: str
    number: int
    version: int
    dtype: np.dtype[np.void]
    most: int


# How far each writing stream has come in this user's partition; `log` says of which log that offset is.
APPLIED: Final = Section("applied", 1, 1, np.dtype([("stream", "u1"), ("log", "<u4"), ("offset", "<i8")]), 8)
# Sums for ever; a counter that is not here is 0.
COUNTS: Final = Section("counts", 2, 1, np.dtype([("counter", "u1"), ("value", "<u4")]), 255)
CLICKS: Final = Section("clicks", 3, 1, EVENT, 20)
MUTES: Final = Section("mutes", 4, 1, EVENT, 12)
TARGETS: Final = Section("targets", 5, 1, EVENT, 4)
# `day`: UTC day (since 1970-01-01) of the newest impression; `days`: 4 bits for each of 8 days, the lowest for `day`,
# the next for the day before it, …
SHOWN: Final = Section("shown", 6, 1, np.dtype([("content", "<u8"), ("day", "<u2"), ("days", "<u4")]), 24)
# `count`: impressions of the service on UTC day `day`.
SHOWN_SERVICES: Final = Section(
    "shown_services", 7, 1, np.dtype([("service", "<u8"), ("day", "<u2"), ("count", "<u2")]), 12
)
# What a rule caps the frequency of: services, values of attributes. `days` as in `shown`.
SHOWN_LABELS: Final = Section("shown_labels", 20, 1, np.dtype([("label", "<u8"), ("day", "<u2"), ("days", "<u4")]), 16)

MOST_TASTE: Final = 100
# What the user did with each of the contents reacted to last, one entry a content, where a model of the mesh needs
# it: it then takes the place of clicks and targets. `did`: bits of TASTE_BITS; `dwell`: seconds, see `dwell_code`.
TASTE: Final = Section(
    "taste", 8, 1, np.dtype([("content", "<u8"), ("time_s", "<u4"), ("did", "u1"), ("dwell", "u1")]), MOST_TASTE
)
TASTE_BITS: Final[Mapping[str, int]] = {"click": 1, "target": 2, "dwell": 4, "mute": 8}
"""By kind of reaction; a bit is never used again for another kind."""

SECTIONS: Final = (APPLIED, COUNTS, CLICKS, MUTES, TARGETS, SHOWN, SHOWN_SERVICES, SHOWN_LABELS, TASTE)
_ENTRY_BYTES: Final = {(section.number, section.version): section.dtype.itemsize for section in SECTIONS}
COUNTERS: Final[Mapping[str, int]] = {
    "feedback": 1,
    "clicks": 2,
    "mutes": 3,
    "targets": 4,
    "shown": 5,
    "dwell_s": 6,
}
"""Number of each counter in :data:`COUNTS`; never used again for another one."""
STREAMS: Final[Mapping[str, int]] = {"reactions": 1, "shown": 2}
"""Number of each stream that writes records, in :data:`APPLIED`."""

Part = tuple[int, int, bytes]
"""A section as it is stored: its number, its version, its entries."""

FORMAT: Final = 2
MARK: Final = b"\xb5"
_HEAD: Final = struct.Struct("<BB5xc")
_ENTRY: Final = struct.Struct("<BBH")
HEAD_BYTES: Final = _HEAD.size
ENTRY_BYTES: Final = _ENTRY.size
_OLD_HEAD: Final = struct.Struct("<qIIIHH")  # offset, feedback, clicks, mutes, n_clicks, n_mutes
_EVENT: Final = struct.Struct("<IQQQ")
_APPLIED: Final = struct.Struct("<BIq")
_COUNT: Final = struct.Struct("<BI")
_SHOWN: Final = struct.Struct("<QHI")
_SERVICE: Final = struct.Struct("<QHH")
_TASTE: Final = struct.Struct("<QIBB")
_TASTE_LEAST: Final = 20
_RECORD_BYTES: Final = 1024
_MOST_U32: Final = 2**32 - 1
_MOST_U16: Final = 2**16 - 1
ANY_LOG: Final = 0
"""In :data:`APPLIED`: written before records knew of which log an offset is; taken for the reader's."""


class BadRecord(ValueError):
    """A value that is no user record."""


def parts_of(value: bytes) -> list[Part]:
    """The sections of a packed value, also of one from before there were sections.

    Raises:
        BadRecord: Its length is not what its header says, or its format is none that is known here.
    """
    if len(value) < _HEAD.size:
        raise BadRecord(f"{len(value)} bytes are no user record")
    layout, n, mark = _HEAD.unpack_from(value)
    if mark != MARK:
        return _old_parts(value)
    at = _HEAD.size + n * _ENTRY.size
    if layout != FORMAT or len(value) < at:
        raise BadRecord(f"{len(value)} bytes of format {layout} are no user record")
    parts: list[Part] = []
    for number, version, size in _ENTRY.iter_unpack(value[_HEAD.size : at]):
        if size % _ENTRY_BYTES.get((number, version), 1):
            raise BadRecord(f"section {number} of a user record has {size} bytes, which are no whole entries")
        parts.append((number, version, value[at : at + size]))
        at += size
    if at != len(value):
        raise BadRecord(f"a user record has {len(value)} bytes, its table says {at}")
    return parts


def _old_parts(value: bytes) -> list[Part]:
    if len(value) < _OLD_HEAD.size:
        raise BadRecord(f"{len(value)} bytes are no user record")
    offset, feedback, clicks, mutes, n_clicks, n_mutes = _OLD_HEAD.unpack_from(value)
    middle = _OLD_HEAD.size + n_clicks * EVENT.itemsize
    if len(value) != middle + n_mutes * EVENT.itemsize:
        raise BadRecord(f"a user state has {len(value)} bytes, its header says {middle + n_mutes * EVENT.itemsize}")
    counts = ((COUNTERS["feedback"], feedback), (COUNTERS["clicks"], clicks), (COUNTERS["mutes"], mutes))
    return [
        (APPLIED.number, APPLIED.version, _APPLIED.pack(STREAMS["reactions"], ANY_LOG, offset)),
        (COUNTS.number, COUNTS.version, b"".join(_COUNT.pack(*each) for each in counts)),
        (CLICKS.number, CLICKS.version, value[_OLD_HEAD.size : middle]),
        (MUTES.number, MUTES.version, value[middle:]),
    ]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream has been applied.

    Attributes:
        stream: Name, of :data:`STREAMS`.
        log: Which log (topic and partition) the offset counts, > 0; of another one it means nothing.
        offset: Of the last record that is in; -1: none.
    """

    stream: str
    log: int
    offset: int


@dataclass(frozen=True)
class UserRecord:
    """One user's record, as its writer sees it. Immutable; each method returns the next record.

    A section of another version than ours stays as it is, whatever is done to it here.
    """

    parts: Mapping[int, tuple[int, bytes]]

    @classmethod
    def empty(cls) -> UserRecord:
        """Return the record of a user of whom nothing is known."""
        return cls({})

    @classmethod
    def unpack(cls, value: bytes) -> UserRecord:
        """Read a packed value. Raises BadRecord."""
        return cls({number: (version, data) for number, version, data in parts_of(value)})

    def pack(self) -> bytes:
        """Return the packed value; equal records are equal bytes."""
        table: list[bytes] = []
        sections: list[bytes] = []
        for number in sorted(self.parts):
            version, data = self.parts[number]
            if data:
                table.append(_ENTRY.pack(number, version, len(data)))
                sections.append(data)
        return _HEAD.pack(FORMAT, len(table), MARK) + b"".join(table) + b"".join(sections)

    @property
    def packed_bytes(self) -> int:
        """Length of the packed value."""
        sizes = [len(data) for _, data in self.parts.values() if data]
        return HEAD_BYTES + ENTRY_BYTES * len(sizes) + sum(sizes)

    def entries(self, section: Section) -> NDArray[np.void]:
        """``section.dtype[n]``, the newest first, without a copy; empty when the record has none that we can read."""
        return np.frombuffer(self._data(section), section.dtype)

    def clicks(self) -> NDArray[np.void]:
        """``EVENT[n]``: the clicks that are remembered, in either section; those of :data:`TASTE` without service and
        placement."""
        taste = self.entries(TASTE)
        clicked = taste[taste["did"] & TASTE_BITS["click"] != 0]
        found = np.zeros(len(clicked), EVENT)
        found["content"], found["time_s"] = clicked["content"], clicked["time_s"]
        return np.concatenate([found, self.entries(CLICKS)])

    def count(self, counter: str) -> int:
        """The value of a counter of :data:`COUNTERS`."""
        wanted = COUNTERS[counter]
        return next((value for number, value in _COUNT.iter_unpack(self._data(COUNTS)) if number == wanted), 0)

    def applied(self, stream: str, log: int) -> int:
        """Offset of the last record of a stream that is in here; -1: none of this log is."""
        data = self._data(APPLIED)
        at = _place(data, _APPLIED.size, STREAMS[stream])
        if at < 0:
            return -1
        _, known_log, offset = _APPLIED.unpack_from(data, at)
        return int(offset) if known_log in (log, ANY_LOG) else -1

    def moved(self, position: Position) -> UserRecord:
        """Note that a stream has come to a position."""
        return self._with((APPLIED, self._moved(position)))

    def _moved(self, position: Position) -> bytes:
        """Section :data:`APPLIED` with a stream at a position."""
        number, data = STREAMS[position.stream], self._data(APPLIED)
        others = _without(data, _APPLIED.size, _place(data, _APPLIED.size, number))
        return _APPLIED.pack(number, position.log, position.offset) + others

    def counted(self, **more: int) -> UserRecord:
        """Add to counters, by their names in :data:`COUNTERS`."""
        return self._with((COUNTS, self._counted(more)))

    def _counted(self, more: Mapping[str, int]) -> bytes:
        """Section :data:`COUNTS` with counters added to."""
        counts = bytearray(self._data(COUNTS))
        for name, by in more.items():
            number = COUNTERS[name]
            at = _place(counts, _COUNT.size, number)
            if at < 0:
                at = len(counts)
                counts += _COUNT.pack(number, 0)
            _, before = _COUNT.unpack_from(counts, at)
            _COUNT.pack_into(counts, at, number, min(before + by, _MOST_U32))
        return bytes(counts)

    def remembered(self, section: Section, time_s: int, content: int, service: int, placement: int) -> UserRecord:
        """Put an event before the others of a section of :data:`EVENT`.

        Args:
            section: Clicks, mutes or targets.
            time_s: Broker time, seconds since the Unix epoch.
            content, service, placement: Their 64-bit keys.
        """
        return self._with((section, _EVENT.pack(time_s, content, service, placement) + self._data(section)))

    def tasted(self, kind: str, amount: float, time_s: int, content: int, most: int) -> UserRecord:
        """Note what a user did with a content, before all others. Clicks and targets that were remembered one by one
        are taken over.

        Args:
            kind: Of :data:`TASTE_BITS`.
            amount: Of a dwell, in seconds; they add up.
            time_s: Broker time, seconds since the Unix epoch.
            content: Its 64-bit key.
            most: Contents that the mesh needs; at least 20 are kept, for what is not to be shown again.
        """
        entries = list(_TASTE.iter_unpack(self._data(TASTE)))
        record = self
        for section, bit in ((CLICKS, TASTE_BITS["click"]), (TARGETS, TASTE_BITS["target"])):
            for at_s, other, _, _ in _EVENT.iter_unpack(self._data(section)):
                entries.append((other, at_s, bit, 0))
            record = record._with((section, b""))
        did, dwell = TASTE_BITS[kind], dwell_code(amount) if kind == "dwell" else 0
        for each in entries:
            if each[0] == content:
                did, dwell = did | each[2], dwell_code(dwell_s(dwell) + dwell_s(each[3]))
        others: dict[int, tuple[int, int, int, int]] = {}
        for each in entries:
            if each[0] != content:
                others.setdefault(each[0], each)
        kept = [(content, time_s, did, dwell), *others.values()][: max(most, _TASTE_LEAST)]
        return record._with((TASTE, b"".join(_TASTE.pack(*each) for each in kept)))._within(
            _RECORD_BYTES + max(most - 30, 0) * _TASTE.size
        )

    def _within(self, most_bytes: int) -> UserRecord:
        """The record with so many fewer of the contents that were shown, the oldest first, that it has at most so many
        bytes packed."""
        labels = len(self._data(SHOWN_LABELS))  # a cap that forgets is none: they come on top
        surplus = self.packed_bytes - labels - most_bytes
        shown = self._data(SHOWN)
        left = max(len(shown) - -(-surplus // _SHOWN.size) * _SHOWN.size, 0)
        return self if surplus <= 0 else self._with((SHOWN, shown[:left]))

    def shown(
        self, time_s: int, content: int, service: int, labels: Iterable[int] = (), *, at: Position | None = None
    ) -> UserRecord:
        """Count an impression: ever, of its content by day, of its service today, and of what it is counted by
        besides (``Decision.counted_by``) by day. ``at``: to where its stream comes by it; see :meth:`moved`."""
        day = min(time_s // DAY_S, _MOST_U16)
        counted = self
        for label in labels:
            counted = counted._with((SHOWN_LABELS, _shown_on(counted._data(SHOWN_LABELS), day, label)))
        services = self._data(SHOWN_SERVICES)
        place = _key_place(services, _SERVICE.size, service)
        _, last_day, before = _SERVICE.unpack_from(services, place) if place >= 0 else (service, day, 0)
        today = _SERVICE.pack(service, day, min(before + 1 if last_day == day else 1, _MOST_U16))
        record = counted._with(
            (SHOWN, _shown_on(self._data(SHOWN), day, content)),
            (COUNTS, self._counted({"shown": 1})),
            (SHOWN_SERVICES, today + _without(services, _SERVICE.size, place)),
            *([] if at is None else [(APPLIED, self._moved(at))]),
        )
        taste = len(self._data(TASTE)) // _TASTE.size
        return record._within(_RECORD_BYTES + max(taste - 30, 0) * _TASTE.size) if taste else record

    def _data(self, section: Section) -> bytes:
        version, data = self.parts.get(section.number, (section.version, b""))
        return data if version == section.version else b""

    def _with(self, *changed: tuple[Section, bytes]) -> UserRecord:
        parts = dict(self.parts)
        for section, data in changed:
            version, _ = parts.get(section.number, (section.version, b""))
            if version == section.version:
                parts[section.number] = (version, data[: section.most * section.dtype.itemsize])
        return UserRecord(parts)


def _place(data: bytes | bytearray, size: int, number: int) -> int:
    """Where, in entries of ``size`` bytes, the first one begins whose first byte is a number; below 0: none does."""
    return size * data[::size].find(number)


def _key_place(data: bytes, size: int, key: int) -> int:
    """The same of entries that begin with a 64-bit key."""
    wanted = key.to_bytes(8, "little")
    at = data.find(wanted)
    while at >= 0 and at % size:
        at = data.find(wanted, at + 1)
    return at


def _without(data: bytes, size: int, at: int) -> bytes:
    """Entries of ``size`` bytes without the one at a place; below 0: all of them."""
    return data if at < 0 else data[:at] + data[at + size :]


def _shown_on(data: bytes, day: int, key: int) -> bytes:
    """A section of keys and their days with one more of a key on a day."""
    at = _key_place(data, _SHOWN.size, key)
    _, last_day, days = _SHOWN.unpack_from(data, at) if at >= 0 else (key, day, 0)
    return _SHOWN.pack(key, *_one_more(day, last_day, days)) + _without(data, _SHOWN.size, at)


def dwell_code(seconds: float) -> int:
    """Seconds as a byte: eight steps for each doubling, so within 5 %; 0 is none."""
    return min(round(8 * math.log2(1 + seconds)), 255)


def dwell_s(code: int) -> float:
    """The seconds that a byte of :func:`dwell_code` stands for."""
    return float(2 ** (code / 8) - 1)


def _one_more(day: int, last_day: int, days: int) -> tuple[int, int]:
    """The newest day and the counts by day with one more impression on ``day``; one that is older than the newest is
    counted on its own day."""
    newest = max(day, last_day)
    days = (days << 4 * min(newest - last_day, SHOWN_DAYS)) & _MOST_U32
    at = 4 * (newest - day)
    if at < 4 * SHOWN_DAYS and days >> at & MOST_A_DAY < MOST_A_DAY:
        days += 1 << at
    return newest, days
