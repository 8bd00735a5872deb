"""Many small files of an hour become few large ones.

The compacted file is written first, under a name of its own; then the folder's index names it, and what it replaces;
then what it replaces is deleted. Our reader goes by the index, so it sees each row once at any moment. Whoever reads
the files as they are sees rows twice between the first step and the last, some seconds.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from banditmesh.archive.index import HeldIndex, counting, get_index, put_index
from banditmesh.archive.layout import HOUR, Folder, Kind, compacted_name, is_compacted, range_of
from banditmesh.archive.rewriting import Told, all_folders, nobody, write_merged
from banditmesh.archive.state import States
from banditmesh.runtime.cancellation import to_its_end
from banditmesh.runtime.errors import Aborted, DataLoss
from banditmesh.runtime.store import Store

SETTLED_AFTER: Final = timedelta(hours=2)
"""After the end of an hour. Later examples of it are rare; they get files of their own."""
TARGET_BYTES: Final = 192 << 20
"""No compacted file is much larger."""
MOST_COMPACTED: Final = 8
"""Compacted files of a folder, before they are compacted again."""


@dataclass
class Compacted:
    """What was done: so many folders, whose so many files have become so many. ``broken``: keys of files that cannot
    be read; their hours stay as they are. ``contended``: hours that somebody else rewrites; left for the next time.
    ``unsettled``: hours that are too young."""

    folders: int = 0
    files_before: int = 0
    files_after: int = 0
    rows: int = 0
    contended: int = 0
    unsettled: int = 0
    broken: list[str] = field(default_factory=list)


async def compact(
    store: Store,
    kind: Kind,
    now: datetime,
    *,
    settled_after: timedelta = SETTLED_AFTER,
    target_bytes: int = TARGET_BYTES,
    told: Told = nobody,
) -> Compacted:
    """Compact every hour that has settled. May be stopped and begun again at any time, also by two at once.

    Raises the store's errors.
    """
    states = await States(store, kind).all()
    folders = await all_folders(store, kind)
    done = Compacted()
    for number, (folder, names) in enumerate(folders.items(), start=1):
        if folder.hour + HOUR + settled_after <= now:
            try:
                held = await _tidy(store, folder, names, await get_index(store, folder))
                small = _small(counting(names, held.index, states))
                if len(small) > 1:
                    await _compact(store, folder, small, held, target_bytes, done)
            except DataLoss as error:
                done.broken.append(folder.prefix + str(error.value).rpartition("/")[2])
            except Aborted:
                done.contended += 1
        else:
            done.unsettled += 1
        told(number, len(folders))
    return done


def _small(names: Sequence[str]) -> list[str]:
    compacted = [name for name in names if range_of(name) is None]
    if len(compacted) > MOST_COMPACTED:
        return list(names)
    return [name for name in names if range_of(name)]


async def _tidy(store: Store, folder: Folder, names: Sequence[str], held: HeldIndex) -> HeldIndex:
    """Delete what a death has left: files that are replaced, and compacted ones that nothing names."""
    orphans = [name for name in names if is_compacted(name) and name not in held.index.compacted]
    if orphans:
        # Somebody may be about to name one of them. Once the index has moved on, that fails.
        held = await put_index(store, folder, replace(held.index, moved=held.index.moved + 1), held)
    for name in (*orphans, *(held.index.replaced & set(names))):
        await store.delete(folder.prefix + name)
    return held


async def _compact(
    store: Store, folder: Folder, names: Sequence[str], held: HeldIndex, target_bytes: int, done: Compacted
) -> None:
    with tempfile.TemporaryDirectory(prefix="archive-", ignore_cleanup_errors=True) as temporary:
        for group in await _fetched(store, folder, names, Path(temporary), target_bytes):
            if len(group) < 2:
                continue
            target, name = Path(temporary) / "compacted", compacted_name(uuid.uuid4().hex)
            rows = await write_merged(group, target, folder.kind)
            # Nothing is there. Whoever may not delete is refused here, and leaves no row twice for who reads the files.
            await store.delete(folder.prefix + name)
            await store.upload_new(folder.prefix + name, target)
            replaced = [path.name for path in group]
            index = replace(held.index, moved=held.index.moved + 1, compacted={**held.index.compacted, name: replaced})
            try:
                held = await put_index(store, folder, index, held)
            except Aborted:
                await store.delete(folder.prefix + name)
                raise
            for each in replaced:
                await store.delete(folder.prefix + each)
            done.files_before += len(group)
            done.files_after += 1
            done.rows += rows
    done.folders += 1


async def _fetched(
    store: Store, folder: Folder, names: Sequence[str], temporary: Path, target_bytes: int
) -> list[list[Path]]:
    """The files on this machine's disk, in groups that become one each."""
    groups: list[list[Path]] = [[]]
    size = 0
    for name in names:
        path = temporary / name
        await to_its_end(store.download(folder.prefix + name, path))
        if size and size + path.stat().st_size > target_bytes:
            groups.append([])
            size = 0
        groups[-1].append(path)
        size += path.stat().st_size
    return groups
