"""Examples as rows of the archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from banditmesh.archive.layout import HOUR, Folder, Kind
from banditmesh.archive.schema import EXAMPLES
from banditmesh.contracts.events.v1 import events_pb2
from services.learner.examples import Received

HOUR_MS: Final = int(HOUR.total_seconds()) * 1000
OUTCOMES: Final[Mapping[int, str]] = {
    number: name.removeprefix("OUTCOME_").lower() for name, number in events_pb2.Outcome.items()
}
ORIGINS: Final[Mapping[int, str]] = {
    number: name.removeprefix("ORIGIN_").lower() for name, number in events_pb2.Origin.items()
}
_TYPES: Final = {field.name: field.type for field in EXAMPLES}


class Row(NamedTuple):
    """An example, and where it stands."""

    offset: int
    time_ms: int
    """Broker time of the example; never falls within a partition, as the learner's merge takes it."""
    example: Received


class Chunk(NamedTuple):
    """Rows of one partition, and the folders that they belong to.

    Attributes:
        rows: With the columns of the kind's schema.
        placements: Whose rows they are, row by row.
        hours: int64[n], hours since 1970 in UTC.
    """

    rows: pa.RecordBatch
    placements: Sequence[str]
    hours: NDArray[np.int64]


def chunk(rows: Sequence[Row], log: int, partition: int, user_id: Callable[[str], str] | None) -> Chunk:
    """The archive's rows of some examples.

    Args:
        log: Of the partition that they were read from.
        user_id: What stands for a user; None: the user's own id.
    """
    joined = [row.example.joined for row in rows]
    decided = [row.example.decision for row in rows]
    sources = [row.example.source for row in rows]
    users: list[str] = [each.user_id for each in decided]
    shown_ms = np.array([each.impression_time_ms for each in joined], np.int64)
    reacted_ms = np.array([each.reaction_time_ms for each in joined], np.int64)
    propensities = np.array([each.propensity for each in decided], np.float32)
    columns: dict[str, Any] = {
        "impression_time": shown_ms,
        "user": users if user_id is None else list(map(user_id, users)),
        "service": [each.service for each in decided],
        "content": [each.content_id for each in decided],
        "logic": [each.logic for each in decided],
        "position": [each.position for each in decided],
        "variant": [each.variant for each in decided],
        "model": [each.model for each in decided],
        "model_version": [each.model_version for each in decided],
        "propensity": pa.array(propensities, mask=propensities == 0),
        "origin": [ORIGINS.get(each.origin, "unspecified") for each in decided],
        "feature_ids": _lists([row.example.ids for row in rows], "<u4", pa.int64()),
        "feature_values": _lists([row.example.values for row in rows], "<f4", pa.float32(), none_if_empty=True),
        "outcome": [OUTCOMES.get(each.outcome, "unspecified") for each in joined],
        "target": [each.target or None for each in joined],
        "reward": np.array([each.reward for each in joined], np.float32),
        "reactions": _reactions([each.reactions for each in joined]),
        "reaction_time": pa.array(reacted_ms, mask=reacted_ms == 0),
        "decided_at": np.array([each.decided_at_ms for each in decided], np.int64),
        "impression_id": [each.impression_id for each in decided],
        "example_time": np.array([row.time_ms for row in rows], np.int64),
        "example_log": np.full(len(rows), log),
        "example_partition": np.full(len(rows), partition, np.int32),
        "example_offset": np.array([row.offset for row in rows], np.int64),
        "source_log": [each.log for each in sources],
        "source_partition": [each.partition for each in sources],
        "source_offset": [each.offset for each in sources],
    }
    arrays = [_array(columns[field.name], field.type) for field in EXAMPLES]
    return Chunk(
        pa.RecordBatch.from_arrays(arrays, schema=EXAMPLES), [each.placement for each in decided], shown_ms // HOUR_MS
    )


def merged(chunks: Sequence[Chunk]) -> Chunk:
    """The rows of consecutive chunks as one, each column in one piece of memory."""
    return Chunk(
        pa.concat_batches([each.rows for each in chunks]),
        list(chain.from_iterable(each.placements for each in chunks)),
        np.concatenate([each.hours for each in chunks]),
    )


def by_folder(chunks: Sequence[Chunk], kind: Kind) -> Iterator[tuple[Folder, pa.Table]]:
    """The rows of each folder, in their order."""
    if not chunks:
        return
    whole = pa.Table.from_batches([each.rows for each in chunks])
    placements = list(chain.from_iterable(each.placements for each in chunks))
    hours = np.concatenate([each.hours for each in chunks])
    numbers = {placement: number for number, placement in enumerate(dict.fromkeys(placements))}
    which = np.array([numbers[placement] for placement in placements], np.int64)
    for placement, number in numbers.items():
        for hour in np.unique(hours[which == number]).tolist():
            mine = (which == number) & (hours == hour)
            folder = Folder(kind, placement, datetime.fromtimestamp(hour * HOUR_MS // 1000, UTC))
            yield folder, whole if mine.all() else whole.filter(pa.array(mine))


def _array(given: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(given, pa.Array):
        return given if given.type == kind else given.cast(kind)
    if isinstance(given, np.ndarray) and pa.types.is_timestamp(kind):
        return pa.array(given).cast(kind)
    return pa.array(given, kind)


def _lists(rows: Sequence[bytes], dtype: str, kind: pa.DataType, *, none_if_empty: bool = False) -> pa.ListArray:
    """Lists of numbers of 32 bits, out of their memory."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(each) >> 2 for each in rows], out=offsets[1:])
    flat = pa.array(np.frombuffer(b"".join(rows), dtype)).cast(kind)
    mask = pa.array(offsets[1:] == offsets[:-1]) if none_if_empty else None
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=mask)


def _reactions(rows: Sequence[Iterable[int]]) -> pa.ListArray:
    return pa.array([[OUTCOMES.get(each, "unspecified") for each in row] for row in rows], _TYPES["reactions"])
