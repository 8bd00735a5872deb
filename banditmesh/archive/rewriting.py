"""What compacting, erasing and expiring share: all folders, and a file's rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import parquet

from banditmesh.archive.layout import Folder, Kind, folder_of
from banditmesh.archive.parquet import ROWS_A_GROUP, readable, writer
from banditmesh.archive.schema import EXAMPLES, VERSION, VERSION_KEY, conform
from banditmesh.runtime.cancellation import on_thread
from banditmesh.runtime.store import Store

Told = Callable[[int, int], None]
"""Told how many folders of how many are done."""
_AT_ONCE: Final = 65_536


def nobody(done: int, of: int) -> None:
    """Tell nobody."""


async def all_folders(store: Store, kind: Kind) -> Mapping[Folder, list[str]]:
    """Every folder of the archive with the names of all that is in it, in the order of time."""
    found: dict[Folder, list[str]] = defaultdict(list)
    async for key in store.list(f"archive/{kind}/"):
        folder = folder_of(key)
        if folder is not None:
            found[folder].append(key.rpartition("/")[2])
    return {folder: found[folder] for folder in sorted(found, key=lambda each: (each.hour, each.placement))}


def merged_schema(files: list[Path], kind: Kind) -> pa.Schema:
    """The schema that has the columns of all files."""
    known = EXAMPLES.names if kind == "examples" else []
    found, version = pa.schema([]), VERSION
    for path in files:
        with readable(path.name):
            schema = parquet.read_schema(path)
            others = pa.schema([field for field in schema if field.name not in known])
            found = pa.unify_schemas([found, others], promote_options="permissive")
            version = max(version, int((schema.metadata or {}).get(VERSION_KEY, VERSION)))
    if kind == "decisions":
        return found
    # What a later release has written has columns that this one does not know: they are kept as they are.
    return pa.schema([*EXAMPLES, *found], metadata={VERSION_KEY: str(version).encode()})


def batches_of(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a file, with the columns of a schema."""
    with readable(path.name), parquet.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(batch_size=_AT_ONCE):
            yield conform(batch, schema)


async def write_merged(files: list[Path], target: Path, kind: Kind) -> int:
    """One file with the rows of several, in their order; returns how many these are. In bounded memory."""
    return await on_thread(_write_merged, files, target, kind)


def _write_merged(files: list[Path], target: Path, kind: Kind) -> int:
    schema = merged_schema(files, kind)
    rows, group, waiting = 0, [], 0
    with writer(target, schema) as file:
        for path in files:
            for batch in batches_of(path, schema):
                group.append(batch)
                waiting += len(batch)
                rows += len(batch)
                if waiting >= ROWS_A_GROUP:
                    file.write_table(pa.Table.from_batches(group), row_group_size=ROWS_A_GROUP)
                    group, waiting = [], 0
        if group:
            file.write_table(pa.Table.from_batches(group, schema), row_group_size=ROWS_A_GROUP)
    return rows
