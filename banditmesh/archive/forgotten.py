"""Who was erased: what of them is still on its way to the archive does not come in.

``archive/forgotten/SHA256.json``, by the hash of the id that the archive has of the user, with the time until which
nothing of the user is archived. Such a note is needed as long as the topics remember what is older than it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from banditmesh.archive.layout import Kind
from banditmesh.archive.schema import TIME_COLUMN
from banditmesh.runtime.errors import NotFound
from banditmesh.runtime.store import Store

PREFIX: Final = "archive/forgotten/"
NEEDED_FOR: Final = timedelta(days=90)
"""The mesh makes its topics with 30 days at most."""


async def remember(store: Store, user: str, until_ms: int) -> None:
    """Note that nothing of this user (as the archive names it) that was shown before that time is archived any more."""
    await store.put(f"{PREFIX}{_name(user)}.json", json.dumps({"until_ms": until_ms}).encode())


async def forgotten(store: Store) -> Mapping[str, int]:
    """For the hash of each forgotten user, the time in milliseconds until which nothing is archived."""
    found: dict[str, int] = {}
    async for key in store.list(PREFIX):
        try:
            note = json.loads((await store.get(key)).body)
            found[key.removeprefix(PREFIX).removesuffix(".json")] = int(note["until_ms"])
        except (NotFound, ValueError, KeyError):
            continue
    return found


async def drop_old(store: Store, now: datetime) -> None:
    """Delete notes that are not needed any more: no topic remembers so far back."""
    for name, until_ms in (await forgotten(store)).items():
        if until_ms < (now - NEEDED_FOR).timestamp() * 1000:
            await store.delete(f"{PREFIX}{name}.json")


def without(table: pa.Table, gone: Mapping[str, int], kind: Kind) -> pa.Table:
    """The rows that are not of forgotten users."""
    if not gone or not len(table):
        return table
    times = table.column(TIME_COLUMN[kind]).cast(pa.int64()).to_pylist()
    users = table.column("user").to_pylist()
    hashes = {user: _name(user) for user in set(users) if user is not None}
    kept = np.array(
        [user is None or gone.get(hashes[user], -1) < moment for user, moment in zip(users, times, strict=True)],
        np.bool_,
    )
    return table if kept.all() else table.filter(pa.array(kept))


def _name(user: str) -> str:
    return hashlib.sha256(user.encode()).hexdigest()
