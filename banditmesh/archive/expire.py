"""Old hours are deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from banditmesh.archive.forgotten import drop_old
from banditmesh.archive.layout import HOUR, INDEX, KINDS, is_ours
from banditmesh.archive.rewriting import Told, all_folders, nobody
from banditmesh.runtime.store import Store


@dataclass
class Expired:
    """What was deleted."""

    folders: int = 0
    files: int = 0


async def expire(store: Store, keep: timedelta, now: datetime, *, told: Told = nobody) -> Expired:
    """Delete every hour that ended longer than ``keep`` ago. Raises the store's errors."""
    done = Expired()
    for kind in KINDS:
        folders = await all_folders(store, kind)
        for number, (folder, names) in enumerate(folders.items(), start=1):
            if folder.hour + HOUR + keep <= now:
                # The index at the end: as long as there are files, it says which of them count.
                ours = [name for name in names if is_ours(name)]
                for name in (*ours, *(name for name in names if name == INDEX)):
                    await store.delete(folder.prefix + name)
                done.folders += bool(ours)
                done.files += len(ours)
            told(number, len(folders))
    await drop_old(store, now)
    return done
