"""Erasing a user: every file that holds the user is replaced by one that does not.

A file keeps its name and is replaced as a whole, so readers, whatever they are, see it as it was or as it is: no row
twice, and none of others missing. First of all it is noted that the user is forgotten (`forgotten`), so that what is
still on its way does not come in. May be stopped and begun again at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from banditmesh.archive.forgotten import remember
from banditmesh.archive.index import get_index, put_index
from banditmesh.archive.layout import KINDS, Folder, Kind, is_ours
from banditmesh.archive.parquet import encode, readable
from banditmesh.archive.rewriting import Told, all_folders, nobody
from banditmesh.archive.state import States
from banditmesh.runtime.errors import Aborted, DataLoss, NotFound
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.store import Store

log = get_logger(__name__)

BEGUN_FOR_S: Final = 30.0
"""A range takes seconds from begun to complete; one that takes longer has lost its writer, and the next one will find
the note."""
_ASK_EVERY_S: Final = 0.2


@dataclass
class Forgotten:
    """What was done. ``broken``: keys of files that cannot be read; whether the user is in them is not known."""

    files: int = 0
    rows: int = 0
    broken: set[str] = field(default_factory=set)


async def forget(store: Store, users: Collection[str], until_ms: int, *, told: Told = nobody) -> Forgotten:
    """Erase users: what was shown to them before that time.

    Args:
        users: As the archive names them.

    Raises the store's errors.
    """
    for user in users:
        await remember(store, user, until_ms)
    done = Forgotten()
    for kind in KINDS:
        await _no_range_is_begun(store, kind)
        folders = await all_folders(store, kind)
        for number, folder in enumerate(folders, start=1):
            while not await _rewritten(store, folder, set(users), done):
                pass
            told(number, len(folders))
    return done


async def _no_range_is_begun(store: Store, kind: Kind) -> None:
    """Wait for the ranges whose writers began before the note was there."""
    states = States(store, kind)
    before = {at: state.begun for at, state in (await states.all()).items() if state.is_begun}
    deadline_s = time.monotonic() + BEGUN_FOR_S
    while before and time.monotonic() < deadline_s:
        now = await states.all()
        before = {at: begun for at, begun in before.items() if now[at].is_begun and now[at].begun == begun}
        await asyncio.sleep(_ASK_EVERY_S if before else 0)


async def _rewritten(store: Store, folder: Folder, users: set[str], done: Forgotten) -> bool:
    """Rewrite an hour; False: it has changed meanwhile, and must be looked at again."""
    held = await get_index(store, folder)
    changed = False
    names = [key.rpartition("/")[2] async for key in store.list(folder.prefix)]
    for name in names:
        if is_ours(name):
            try:
                rows = await _without(store, folder.prefix + name, users)
            except DataLoss:
                done.broken.add(folder.prefix + name)
                continue
            except NotFound:  # compacted meanwhile
                return False
            except Aborted:  # erased from by somebody else meanwhile
                return False
            done.rows += rows
            done.files += rows > 0
            changed = changed or rows > 0
    try:
        # Whoever compacts this hour has read files before they changed: what it made of them must not count.
        if changed:
            await put_index(store, folder, replace(held.index, moved=held.index.moved + 1), held)
    except Aborted:
        return False
    return True


async def _without(store: Store, key: str, users: set[str]) -> int:
    """Replace a file by one without these users; returns how many rows it has lost. Raises NotFound, Aborted."""
    found = await store.get(key)
    with readable(key):
        rows, body = await asyncio.to_thread(_filtered, found.body, users)
    if rows:
        await store.replace(key, body, found.etag)
    return rows


def _filtered(body: bytes, users: set[str]) -> tuple[int, bytes]:
    with parquet.ParquetFile(pa.BufferReader(body)) as file:
        there = file.read(columns=["user"]).column("user")
        gone = pc.fill_null(pc.is_in(there, pa.array(sorted(users), there.type)), False)
        rows = int(np.count_nonzero(gone.to_numpy()))
        if not rows:
            return 0, b""
        return rows, encode(file.read().filter(pc.invert(gone))).to_pybytes()
