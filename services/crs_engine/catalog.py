"""The contents that this engine knows, as columns: what filters and features need of thousands of them is one gather
each.

A content comes in when a candidate names it for the first time, and again when the change stream says that it has
changed. What Redis does not have is remembered too, for a short time. The size is bounded: when it is full, the
contents that nobody asked for lately make room.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from banditmesh.bandits import hashing
from banditmesh.bandits.blocks import FieldBlock
from banditmesh.bandits.features import Featurizer, Value
from banditmesh.contracts.crs_engine.v1.crs_engine_pb2 import SelectedContent
from banditmesh.contracts.events.v1.events_pb2 import Decision
from banditmesh.contracts.provider.v1.provider_pb2 import Content
from banditmesh.runtime import packing
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.token import MOST_LABELS
from services.crs_engine import attribute_columns
from services.crs_engine.announcements import Announcements, Reading
from services.crs_engine.key_index import KeyIndex

log = get_logger(__name__)

MOST_BYTES: Final = 1 << 30
"""Contents have up to a megabyte each, though a few hundred bytes are usual."""
PUBLISHED_AT: Final = "published_at"
"""The attribute that says when a content was published: a number, in seconds since the Unix epoch."""
HIDDEN: Final = np.uint8(1)
ABSENT: Final = np.uint8(2)

KEEP_S: Final = 600.0
"""A content is read again after this long even if no change was announced: what a Redis fail-over lost of the change
stream heals."""
KEEP_ABSENT_S: Final = 5.0
SERVICE: Final = "service"
_EVICT_SHARE: Final = 8
_FIRST_ROWS: Final = 1024
_NOTHING: Final = Content()
_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "key": np.uint64,
    "service": np.uint64,
    "since_s": np.float64,
    "expires_s": np.float64,
    "due_s": np.float64,
    "flags": np.uint8,
    "used": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What Redis has under a content key; ``value`` is None when that is nothing."""

    key: int
    value: bytes | None


class Catalog:
    """See the module. Row numbers are valid until the next :meth:`put`.

    Attributes:
        capacity: Contents kept at most.
        most_bytes: Of the serialised contents together, at most.
        unreadable: Values that were no packed content, ever.
        evicted: Contents that had to make room, ever.
        announced: What the change stream said of them. Those that are not here are noted there, and those of the
            services that are followed.
        writes: How often contents were taken in, ever.
    """

    def __init__(
        self,
        capacity: int,
        featurizers: Sequence[Featurizer],
        *,
        notes_new: bool = False,
        follows: Collection[str] = (),
        most_bytes: int = MOST_BYTES,
        attributes: Collection[str] = (),
        counted_by: Collection[str] = (),
        dimensions: int = 0,
    ) -> None:
        """See the class.

        Args:
            capacity: Contents kept at most.
            featurizers: Whose content side is wanted; later named by their position.
            most_bytes: Of the serialised contents together, at most.
            notes_new: Whether to note the contents that are announced and not here (`Announcements.take_new`).
            dimensions: Of the contents' vectors; 0: they have none.
            follows: Services whose contents are noted there also when they are here and have changed: models propose
                out of all of them, as they are now.
            attributes: Names of those that rules look at.
            counted_by: What impressions are counted by beside the content, for frequency caps: ``service``, or names
                of attributes among those.
        """
        self.capacity = capacity
        self.most_bytes = most_bytes
        self._bytes = 0
        self.announced = Announcements()
        self._notes_new = notes_new or bool(follows)
        self._follows = np.array([hashing.service_key(each) for each in follows], np.uint64)
        self.writes = 0
        self.unreadable = 0
        self.evicted = 0
        self._featurizers = featurizers
        self._index = KeyIndex()
        self._size = 0
        # Contiguous columns read by ``take``: ten times as fast as indexing, or as the fields of a structured array.
        self._columns: dict[str, NDArray[Any]] = {
            name: np.zeros(_FIRST_ROWS, dtype) for name, dtype in _COLUMNS.items()
        }
        self._blocks = [_zero_block(_FIRST_ROWS, featurizer.spec.content_columns) for featurizer in featurizers]
        self.attributes = attribute_columns.columns(sorted({*attributes, *counted_by} - {SERVICE}))
        """By name; rows are those of the catalog."""
        self._counted_by = counted_by
        self._vectors = np.zeros((_FIRST_ROWS, dimensions), np.float16)
        self._names: list[tuple[str, str]] = []
        self._shown: list[bytes] = []
        self._decided: list[bytes] = []

    def __len__(self) -> int:
        return self._size

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``int64[n]``: the row of each key, -1 when it is not here. Marks the rows as used."""
        rows = self._index.find(keys)
        self._columns["used"][rows[rows >= 0]] = True
        return rows

    def keys(self, most: int) -> NDArray[np.uint64]:
        """``uint64[n]``: keys of contents that are here, those first that were used lately."""
        found = self._columns["flags"][: self._size] & ABSENT == 0
        rows = np.flatnonzero(found)
        return self._columns["key"][rows[np.argsort(~self._columns["used"][rows], kind="stable")[:most]]]

    def due(self, keys: NDArray[np.uint64], rows: NDArray[np.int64], now_s: float) -> NDArray[np.uint64]:
        """The keys, each once, that must be read from Redis: not here, announced as changed, or too old. ``rows``:
        from :meth:`find`."""
        wanted = (rows < 0) | (self._columns["due_s"].take(rows) <= now_s)
        return np.unique(keys[wanted]) if wanted.any() else keys[:0]

    def put(
        self, fetched: Sequence[Fetched], now_s: float, wall_s: float = 0.0, reading: Reading | None = None
    ) -> None:
        """Take in what Redis said about keys that are all different.

        Args:
            fetched: The keys and their values.
            now_s: By the same clock as in :meth:`due`.
            wall_s: The time, in seconds since the Unix epoch.
            reading: What was announced meanwhile, which has to be read again.
        """
        keys = np.array([each.key for each in fetched], np.uint64)
        rows = self._index.find(keys)
        surplus = self._size + int((rows < 0).sum()) - self.capacity
        if surplus > 0:
            self._evict(surplus + self.capacity // _EVICT_SHARE, keep=rows[rows >= 0])
            rows = self._index.find(keys)
        self.writes += 1
        new = np.flatnonzero(rows < 0)[: self.capacity - self._size]
        rows[new] = np.arange(self._size, self._size + len(new))
        self._grow(len(new))
        self._index.add(keys[new], rows[new])
        self._columns["since_s"][rows[new]] = wall_s
        for each, row in zip(fetched, rows.tolist(), strict=True):
            if row >= 0:
                self._write(row, each, now_s, wall_s)
        if reading is not None:
            self._due_again(self._index.find(reading.overtaken(keys.tolist())))
        while self._bytes > self.most_bytes and self._size > 1:
            self._evict(max(1, self._size // _EVICT_SHARE), keep=rows[:0])

    def mark_changed(self, keys: NDArray[np.uint64] | None = None) -> None:
        """Have these contents (``uint64[n]``; None: all) read again when they are next needed; until then the old
        ones serve."""
        rows = np.arange(self._size) if keys is None else self._index.find(keys)
        self._due_again(rows)
        self.announced.changed(keys)
        if keys is not None and self._notes_new:
            noted = rows < 0
            if len(self._follows):
                noted |= np.isin(self._columns["service"].take(rows), self._follows)
            self.announced.note(keys[noted])

    def count_live(self, service: str, now_s: float) -> int:
        """How many contents of a service are here and can be shown."""
        columns = {name: column[: self._size] for name, column in self._columns.items()}
        mine = columns["service"] == hashing.service_key(service)
        return int(np.count_nonzero(mine & (columns["flags"] == 0) & (columns["expires_s"] > now_s)))

    def newest(
        self, services: NDArray[np.uint64], size: int, now_s: float
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """``uint64[n]`` each: content and service keys of those services' youngest contents that can be shown, the
        youngest first, at most ``size``. Looks at the whole catalog.

        It knows the contents that are here, and of their age what :meth:`since_s` says.
        """
        columns = {name: column[: self._size] for name, column in self._columns.items()}
        can_be_shown = (columns["flags"] == 0) & (columns["expires_s"] > now_s)
        rows = np.flatnonzero(can_be_shown & np.isin(columns["service"], services))
        if len(rows) > size > 0:  # only they are sorted: 4 ms of 100 000 contents instead of 23
            since_s = columns["since_s"][rows]
            rows = rows[since_s >= np.partition(since_s, -size)[-size]]
        order = np.lexsort((columns["key"][rows], -columns["since_s"][rows]))
        rows = rows[order[:size]]
        return columns["key"][rows], columns["service"][rows]

    # -- columns; `rows` are int64[n]. A row of -1 answers with anything: the caller knows what is not here.

    def since_s(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """``float64[n]``, seconds since the Unix epoch: when the content was published, by its attribute
        ``published_at``; without one, when this engine first read it."""
        return self._columns["since_s"].take(rows)

    def expires_s(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """``float64[n]``, seconds since the Unix epoch; inf where there is no expiry."""
        return self._columns["expires_s"].take(rows)

    def services(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """``uint64[n]``, service keys."""
        return self._columns["service"].take(rows)

    def flags(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """``uint8[n]``: :data:`HIDDEN` and :data:`ABSENT`."""
        return self._columns["flags"].take(rows)

    def features(self, featurizer: int, rows: NDArray[np.int64]) -> FieldBlock:
        """The content side of the rows for the featurizer at that position; the arrays belong to the caller."""
        return self._blocks[featurizer].take(rows)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """``float32[n, dimensions]``: the contents' vectors of length 1; 0 where there is none."""
        return self._vectors.take(rows, axis=0).astype(np.float32) * (rows >= 0)[:, None]

    def can_be_shown(self, rows: NDArray[np.int64], services: NDArray[np.uint64], now_s: float) -> NDArray[np.bool_]:
        """``bool[n]``: which rows are there, of one of the services, not hidden and not expired."""
        columns = self._columns
        shown: NDArray[np.bool_] = (rows >= 0) & (columns["flags"].take(rows) == 0)
        shown &= columns["expires_s"].take(rows) > now_s
        return shown & np.isin(columns["service"].take(rows), services)

    def are_gone(self, rows: NDArray[np.int64], now_s: float) -> NDArray[np.bool_]:
        """``bool[n]``: of which rows it is known that their contents cannot be shown; of a row of -1 it is not."""
        columns = self._columns
        gone: NDArray[np.bool_] = (columns["flags"].take(rows) != 0) | (columns["expires_s"].take(rows) <= now_s)
        return gone & (rows >= 0)

    # -- one row

    def name_of(self, row: int) -> tuple[str, str]:
        """Service and content id of a row; two empty strings where Redis had nothing."""
        return self._names[row]

    def shown(self, row: int) -> bytes:
        """A serialised ``SelectedContent`` with the row's service and content, to be completed by what is appended to
        it."""
        return self._shown[row]

    def decided(self, row: int) -> bytes:
        """A serialised ``Decision`` with the row's service and content id, to be completed by what is appended to
        it."""
        return self._decided[row]

    def content(self, row: int) -> Content:
        """The content of a row."""
        return SelectedContent.FromString(self._shown[row]).content

    def name(self, key: int) -> str | None:
        """``service/content_id`` of a key; None when it is not here."""
        row = int(self._index.find(np.array([key], np.uint64))[0])
        if row < 0 or self._columns["flags"][row] & ABSENT:
            return None
        return "/".join(self._names[row])

    # -- inside

    def _due_again(self, rows: NDArray[np.int64]) -> None:
        self._columns["due_s"][rows[rows >= 0]] = -np.inf

    def _write(self, row: int, fetched: Fetched, now_s: float, wall_s: float) -> None:
        found = self._parse(fetched)
        service, vector, content = found if found is not None else ("", b"", _NOTHING)
        if self._vectors.shape[1]:
            halves = np.frombuffer(vector, "<f2") if len(vector) == 2 * self._vectors.shape[1] else np.zeros(1, "<f2")
            self._vectors[row] = halves if np.isfinite(halves).all() else 0
        self._bytes -= len(self._shown[row]) + len(self._decided[row])
        self._names[row] = (service, content.content_id)
        self._shown[row] = SelectedContent(service=service, content=content).SerializeToString()
        for name, column in self.attributes.items():
            column.write(row, next((attribute_columns.texts(a) for a in content.attributes if a.name == name), ()))
        self._decided[row] = Decision(
            service=service, content_id=content.content_id, counted_by=self._labels(row, service)
        ).SerializeToString()
        self._bytes += len(self._shown[row]) + len(self._decided[row])
        columns = self._columns
        columns["key"][row] = fetched.key
        columns["service"][row] = hashing.service_key(service)
        published_s = next((each.number for each in content.attributes if each.name == PUBLISHED_AT), 0.0)
        # A date to come (milliseconds, perhaps) must not make a content the youngest of all for ever.
        if 0 < published_s <= (wall_s or np.inf):
            columns["since_s"][row] = published_s
        columns["expires_s"][row] = (
            content.expires_at.ToNanoseconds() / 1e9 if content.HasField("expires_at") else np.inf
        )
        columns["due_s"][row] = now_s + (KEEP_ABSENT_S if found is None else KEEP_S)
        columns["flags"][row] = HIDDEN * content.hidden + ABSENT * (found is None)
        columns["used"][row] = True
        fields = content_fields(service, content)
        for featurizer, block in zip(self._featurizers, self._blocks, strict=True):
            hashed = featurizer.contents([fields])
            block.ids[row], block.values[row] = hashed.ids[0], hashed.values[0]

    def _labels(self, row: int, service: str) -> list[int]:
        """What impressions of the row's content are counted by."""
        labels: list[int] = []
        for name in self._counted_by:
            if name == SERVICE:
                labels.append(hashing.service_key(service))
            else:
                labels += [attribute_columns.label_key(name, each) for each in self.attributes[name].values(row)]
        return labels[:MOST_LABELS]

    def _parse(self, fetched: Fetched) -> tuple[str, bytes, Content] | None:
        if fetched.value is None:
            return None
        try:
            service, vector, body = packing.unpack_content_and_vector(fetched.value)
            content = Content.FromString(body)
            if not content.content_id:
                raise ValueError("it has no content id")
            return service, vector, content
        except (DecodeError, ValueError, struct.error) as error:
            self.unreadable += 1
            log.warning(
                "content in Redis is unreadable", key=f"{fetched.key:016x}", size=len(fetched.value), error=str(error)
            )
            return None

    def _evict(self, drop: int, keep: NDArray[np.int64]) -> None:
        """Drop so many rows, an eighth more than must be, so that this happens rarely: what was not used since the
        last time goes first.

        The second chance of the clock algorithm, for all rows at once; among equals the one that was read longest ago
        goes.
        """
        size, columns = self._size, self._columns
        columns["used"][keep] = True
        order = np.lexsort((columns["due_s"][:size], columns["used"][:size]))
        stay = np.sort(order[drop:])
        self._size = len(stay)
        self.evicted += size - self._size
        for column in (
            *columns.values(),
            self._vectors,
            *(part for block in self._blocks for part in (block.ids, block.values)),
        ):
            column[: self._size] = column[stay]
        for attribute in self.attributes.values():
            attribute.keep(stay)
        kept = stay.tolist()
        self._names = [self._names[row] for row in kept]
        self._shown = [self._shown[row] for row in kept]
        self._decided = [self._decided[row] for row in kept]
        self._bytes = sum(map(len, self._shown)) + sum(map(len, self._decided))
        columns["used"][:] = False
        self._index.clear()
        self._index.add(columns["key"][: self._size], np.arange(self._size))

    def _grow(self, new: int) -> None:
        self._names.extend([("", "")] * new)
        self._shown.extend([b""] * new)
        self._decided.extend([b""] * new)
        self._size += new
        room = len(self._columns["key"])
        if self._size <= room:
            return
        room = max(self._size, min(2 * room, self.capacity))
        self._columns = {name: _longer(column, room) for name, column in self._columns.items()}
        self._vectors = _longer(self._vectors, room)
        self._blocks = [FieldBlock(_longer(block.ids, room), _longer(block.values, room)) for block in self._blocks]


def _longer(column: NDArray[Any], room: int) -> NDArray[Any]:
    longer = np.zeros((room, *column.shape[1:]), column.dtype)
    longer[: len(column)] = column
    return longer


def content_fields(service: str, content: Content) -> dict[str, Value]:
    """The fields that ``features.content`` may name: the service and the attributes; several values of one are a
    list."""
    fields: dict[str, Value] = {
        each.name: each.number if each.HasField("number") else list(each.values)
        for each in content.attributes
        if each.values or each.HasField("number")
    }
    fields["service"] = service
    return fields


def _zero_block(rows: int, columns: int) -> FieldBlock:
    return FieldBlock(np.zeros((rows, columns), np.uint32), np.zeros((rows, columns), np.float32))
