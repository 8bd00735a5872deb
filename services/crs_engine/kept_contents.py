"""The fallbacks' contents on disk, so that an engine that starts while Redis is away has something to show.

By choice (``BANDITMESH_KEEP_MODELS``), beside the models that the last engine had. They are as Redis had them; what a
provider has dropped since cannot be known, so each is due at once: it is read again as soon as Redis answers.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.contracts.crs_engine.v1.crs_engine_pb2 import SelectedContent
from banditmesh.runtime import packing
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.store.durable import appearing
from services.crs_engine.catalog import Catalog, Fetched

log = get_logger(__name__)

EVERY_S: Final = 60.0
MOST: Final = 10_000


class KeptContents:
    """A file of JSON lines: a content's key, and what Redis has under it."""

    def __init__(self, path: Path, catalog: Catalog, clock: Clock) -> None:
        """``path``: shared by the engines of a host, which write the same."""
        self._path = path
        self._catalog = catalog
        self._clock = clock
        self._kept: dict[int, bytes] = {}
        self._due_s = 0.0
        self._warned = False

    async def keep(self, contents: NDArray[np.uint64]) -> None:
        """Write down what the catalog has of these (``uint64[n]``, content keys); once a minute, if anything changed.
        What is not in the catalog, as while Redis is away, stays as it was written before."""
        if not len(contents) or self._clock.monotonic_s() < self._due_s:
            return
        wanted = contents[:MOST]
        rows = self._catalog.find(wanted)
        gone = self._catalog.are_gone(rows, self._clock.now_s())
        found = dict(self._kept)
        for key, row, dropped in zip(wanted.tolist(), rows.tolist(), gone.tolist(), strict=True):
            if dropped:
                found.pop(key, None)
            elif row >= 0:
                found[key] = self._catalog.shown(row)
        found = {key: found[key] for key in wanted.tolist() if key in found}
        if found == self._kept:
            return
        self._due_s = self._clock.monotonic_s() + EVERY_S
        try:
            await asyncio.to_thread(_write, self._path, found)
            self._kept, self._warned = found, False
        except OSError as error:  # a full disk: Redis is there, and what it said is good
            if not self._warned:
                log.warning("the fallbacks' contents cannot be kept", path=str(self._path), error=str(error))
            self._warned = True

    async def restore(self) -> None:
        """Take what was kept into the catalog, each to be read again when Redis answers."""
        kept = await asyncio.to_thread(_read, self._path)
        if kept:
            keys = np.array([each.key for each in kept], np.uint64)
            self._catalog.put(kept, self._clock.monotonic_s(), self._clock.now_s())
            self._catalog.mark_changed(keys)
            rows = self._catalog.find(keys).tolist()
            self._kept = {each.key: self._catalog.shown(row) for each, row in zip(kept, rows, strict=True) if row >= 0}
            log.info("the fallbacks' contents of the last engine", contents=len(kept))


def _write(path: Path, shown: dict[int, bytes]) -> None:
    with appearing(path) as file:
        for key, each in shown.items():
            selected = SelectedContent.FromString(each)
            value = packing.pack_content(selected.service, selected.content.SerializeToString())
            file.write(json.dumps({"key": key, "value": base64.b64encode(value).decode()}).encode() + b"\n")


def _read(path: Path) -> Sequence[Fetched]:
    """What was kept; nothing when there is none, or none that can be read."""
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        found = {int(row["key"]): base64.b64decode(row["value"], validate=True) for row in rows}
        if not all(0 <= key < 1 << 64 for key in found):
            raise ValueError("a key is no unsigned number of 64 bits")
        return [Fetched(key, value) for key, value in found.items()][:MOST]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        log.warning("the fallbacks' contents that were kept cannot be read", path=str(path), error=str(error))
        return []
