"""Rows of the archive, and files of them as its writers make them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from banditmesh.archive.layout import Folder, Range
from banditmesh.archive.parquet import encode
from banditmesh.archive.schema import EXAMPLES
from banditmesh.archive.state import Mark, State, States
from banditmesh.runtime.store import Store, open_store

LOG = 0xA1B2C3D4
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def store_in(folder: Path) -> Store:
    """A store in a folder."""
    return open_store(f"file://{folder}")


def rows(first: int, last: int, *, at: datetime = NOON, partition: int = 0, user: str = "u") -> pa.RecordBatch:
    """Rows of these offsets, last excluded, a second apart; user `u7` has offset 7."""
    offsets = list(range(first, last))
    given = {
        "impression_time": [at + timedelta(seconds=offset % 3600) for offset in offsets],
        "user": [f"{user}{offset}" for offset in offsets],
        "service": ["films"] * len(offsets),
        "content": [f"c{offset % 5}" for offset in offsets],
        "logic": ["similar"] * len(offsets),
        "position": [0] * len(offsets),
        "variant": ["a"] * len(offsets),
        "model": ["linear-1a2b3c4d"] * len(offsets),
        "model_version": [1] * len(offsets),
        "propensity": [0.5] * len(offsets),
        "origin": ["policy"] * len(offsets),
        "feature_ids": [[1, 2, offset] for offset in offsets],
        "outcome": [("click", "none")[offset % 2] for offset in offsets],
        "reward": [(1.0, 0.5)[offset % 2] for offset in offsets],
        "reactions": [(["click"], [])[offset % 2] for offset in offsets],
        "reaction_time": [(at + timedelta(seconds=5 + offset % 3600), None)[offset % 2] for offset in offsets],
        "decided_at": [at + timedelta(seconds=offset % 3600) for offset in offsets],
        "impression_id": [offset.to_bytes(16, "big") for offset in offsets],
        "example_time": [at + timedelta(seconds=600 + offset % 3600) for offset in offsets],
        "example_log": [LOG] * len(offsets),
        "example_partition": [partition] * len(offsets),
        "example_offset": offsets,
        "source_log": [1] * len(offsets),
        "source_partition": [partition] * len(offsets),
        "source_offset": offsets,
    }
    columns = [pa.array(given.get(field.name, [None] * len(offsets)), field.type) for field in EXAMPLES]
    return pa.RecordBatch.from_arrays(columns, schema=EXAMPLES)


def as_file(batch: pa.RecordBatch) -> bytes:
    """The file of these rows."""
    return encode(pa.Table.from_batches([batch])).to_pybytes()


async def put(store: Store, folder: Folder, batch: pa.RecordBatch, *, complete: bool = True) -> str:
    """Write a file as the archiver does, and let its range be complete."""
    offsets = batch.column("example_offset").to_pylist()
    partition = batch.column("example_partition")[0].as_py()
    name = Range(LOG, partition, offsets[0], offsets[-1] + 1).file_name(folder.kind)
    await store.put_new(folder.prefix + name, as_file(batch))
    states = States(store, folder.kind)
    held = await states.get(LOG, partition)
    if complete:
        state = (held.state if held else State()).begin(offsets[-1] + 1, Mark(1000 * (1 + offsets[-1]))).complete()
        await states.put(LOG, partition, state, held)
    return name


def offsets_of(batches: Sequence[pa.RecordBatch]) -> list[int]:
    """Their offsets, in the order in which they were read."""
    return [offset for batch in batches for offset in batch.column("example_offset").to_pylist()]
