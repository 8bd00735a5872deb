"""Reading the archive: each row once, and none of a range that is not complete."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from banditmesh.archive.index import Index, counting, get_index
from banditmesh.archive.layout import INDEX, Folder, Kind, Range, day_prefix, folder_of, placement_prefix, range_of
from banditmesh.archive.parquet import readable
from banditmesh.archive.schema import EXAMPLES, OFFSET_COLUMNS, TIME_COLUMN, conform
from banditmesh.archive.state import States
from banditmesh.decisions.columns import values
from banditmesh.decisions.row import Decision, parse
from banditmesh.runtime.cancellation import on_thread, to_its_end
from banditmesh.runtime.errors import InvalidArgument, NotFound
from banditmesh.runtime.store import Store

ROWS_AT_ONCE: Final = 16_384
_DECISIONS_AT_ONCE: Final = 64
_DAYS_ASKED: Final = 62
"""A longer span is not listed day by day: one list of all that a placement has takes fewer requests."""


async def read(
    store: Store,
    placement: str,
    start: datetime,
    end: datetime,
    *,
    kind: Kind = "examples",
    columns: Sequence[str] | None = None,
    partition: int | None = None,
) -> AsyncIterator[pa.RecordBatch]:
    """The rows of a placement whose time is in start (included) to end (excluded), hour by hour, file by file.

    The time is `impression_time` of examples and `t` of decisions. Batches of examples have the columns of
    `schema.EXAMPLES`, whatever version wrote the file; those of decisions the columns of their file.

    Args:
        columns: Which ones; None: all.
        partition: Of which partition of the topic; None: of all. Files that have rows of others alone are not opened.

    Raises:
        InvalidArgument: A time has no zone.
        DataLoss: A file is not whole; it names the file.
        MeshError: The store's.
    """
    for name, given in (("start", start), ("end", end)):
        if given.tzinfo is None:
            raise InvalidArgument("needs a time zone", field=name, value=given.isoformat())
    time = TIME_COLUMN[kind]
    wanted = EXAMPLES if columns is None else pa.schema([EXAMPLES.field(name) for name in columns])
    # Who is cancelled leaves a download behind, whose thread may still write there.
    with tempfile.TemporaryDirectory(prefix="archive-", ignore_cleanup_errors=True) as temporary:
        for folder, names in (await folders(store, placement, start, end, kind)).items():
            for name in names:
                part = range_of(name)
                if partition is not None and part is not None and part.partition != partition:
                    continue
                async for batch in _rows(store, folder, name, Path(temporary), columns):
                    moments = batch.column(time)
                    inside = pc.and_(
                        pc.greater_equal(moments, pa.scalar(start, moments.type)),
                        pc.less(moments, pa.scalar(end, moments.type)),
                    )
                    if partition is not None:
                        inside = pc.and_(inside, pc.equal(batch.column(OFFSET_COLUMNS[kind][1]), partition))
                    found = batch.filter(inside)
                    if not len(found):
                        continue
                    if kind == "examples":
                        with readable(folder.prefix + name):
                            found = conform(found, wanted)
                        yield found
                    else:
                        yield found if columns is None else found.select(list(columns))


async def decisions(store: Store, placement: str, start: datetime, end: datetime) -> AsyncIterator[list[Decision]]:
    """As `read`, the sampled decisions as rows of a decision log, a few at a time: what `decisions.encoder.encode`
    takes. Each has all candidates, what was shown, with which propensity, and the reward that came of it.

    Raises: as `read`.
    """
    line = 0
    async for batch in read(store, placement, start, end, kind="decisions"):
        whole = batch.to_struct_array()
        for at in range(0, len(whole), _DECISIONS_AT_ONCE):
            rows = values(whole.slice(at, _DECISIONS_AT_ONCE))
            yield [
                parse(row, line + number, f"{placement}:{line + number}") for number, row in enumerate(rows, start=1)
            ]
            line += len(rows)


async def folders(
    store: Store, placement: str, start: datetime, end: datetime, kind: Kind = "examples"
) -> dict[Folder, list[str]]:
    """The folders of a span of time with the names of the files that count, in the order of time."""
    # What is complete is asked first: a range that is completed meanwhile is left out as a whole.
    states = await States(store, kind).all()
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    days = range((end - first) // timedelta(days=1) + 2)
    prefixes = (
        [day_prefix(kind, placement, first + timedelta(days=each)) for each in days]
        if len(days) <= _DAYS_ASKED
        else [placement_prefix(kind, placement)]
    )
    found: dict[Folder, list[str]] = defaultdict(list)
    for prefix in prefixes:
        async for key in store.list(prefix):
            folder = folder_of(key)
            if folder is not None and first <= folder.hour < end:
                found[folder].append(key.rpartition("/")[2])
    return {
        folder: counting(
            found[folder], (await get_index(store, folder)).index if INDEX in found[folder] else Index(), states
        )
        for folder in sorted(found)
    }


async def _rows(
    store: Store, folder: Folder, name: str, temporary: Path, columns: Sequence[str] | None
) -> AsyncIterator[pa.RecordBatch]:
    """The rows of a file; when it has been replaced since it was listed, the same rows out of what replaced it."""
    path = temporary / "part.parquet"
    ranges: list[Range] = []
    wanted = columns and [*dict.fromkeys([*columns, TIME_COLUMN[folder.kind], *OFFSET_COLUMNS[folder.kind]])]
    try:
        await to_its_end(store.download(folder.prefix + name, path))
    except NotFound:
        index = (await get_index(store, folder)).index
        ranges, owner = index.ranges(name), index.owner(name)
        if owner is None:
            raise
        await to_its_end(store.download(folder.prefix + owner, path))
    key = folder.prefix + name
    with readable(key):
        file = await on_thread(parquet.ParquetFile, path, memory_map=True)
    with file:
        there = [name for name in wanted if name in file.schema_arrow.names] if wanted else None
        batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=there)
        while True:
            with readable(key):
                batch = await on_thread(next, batches, None)
            if batch is None:
                return
            yield _of(batch, ranges, OFFSET_COLUMNS[folder.kind]) if ranges else batch


def _of(batch: pa.RecordBatch, ranges: Sequence[Range], columns: Sequence[str]) -> pa.RecordBatch:
    """The rows of some ranges."""
    log, partition, offset = (batch.column(name).to_numpy() for name in columns)
    kept = np.zeros(len(batch), np.bool_)
    for each in ranges:
        kept |= (log == each.log) & (partition == each.partition) & (offset >= each.start) & (offset < each.end)
    return batch.filter(pa.array(kept))
