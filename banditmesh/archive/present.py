"""Rows that stand in the archive although the state says that they are still to come.

That is so when the store, or the state alone, was put back as it was some time ago, also while files were written: what
comes again is cut into other ranges then. A file has all rows of its range that belong to its folder, so those are left
out of the new one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from banditmesh.archive.index import Index, get_index
from banditmesh.archive.layout import INDEX, Folder, Kind, Range
from banditmesh.archive.schema import OFFSET_COLUMNS
from banditmesh.runtime.store import Store


async def ranges_beyond(store: Store, folder: Folder, log: int, partition: int, offset: int) -> tuple[Range, ...]:
    """The ranges of a partition that files of a folder, compacted ones too, have rows of from that offset on.

    Raises the store's errors, and DataLoss when the folder's index cannot be read.
    """
    names = [key.rpartition("/")[2] async for key in store.list(folder.prefix)]
    index = (await get_index(store, folder)).index if INDEX in names else Index()
    there = {part for name in names for part in index.ranges(name)}
    return tuple(sorted(each for each in there if (each.log, each.partition) == (log, partition) and each.end > offset))


def without_ranges(table: pa.Table, ranges: Sequence[Range], kind: Kind, since: int = 0) -> pa.Table:
    """The rows of one partition that are in none of the ranges; what stands before an offset stays in any case."""
    offsets = table.column(OFFSET_COLUMNS[kind][2]).to_numpy()
    there = np.zeros(len(table), np.bool_)
    for each in ranges:
        there |= (offsets >= max(each.start, since)) & (offsets < each.end)
    return table.filter(pa.array(~there)) if there.any() else table
