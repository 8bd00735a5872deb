"""The densities that `density` retrieves by: the newest full snapshot and the newest delta to it, exchanged beside the
traffic, and which of their contents can be shown.

A table is immutable: it is made in a thread, and a request sees all of one version or all of the next. A rollback is a
pointer that names an older version, or one that repeats it; it is loaded like any other.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import BanditError
from banditmesh.retrieval.density import DensityParams
from banditmesh.retrieval.served import DensityTable, Rates
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.outages import outages
from banditmesh.runtime.retrieval_options import Density
from banditmesh.runtime.snapshots import BadSnapshot, Pointer, Snapshot, Snapshots
from services.crs_engine.catalog import Catalog
from services.crs_engine.metrics import EngineMetrics

log = get_logger(__name__)

ALIVE_EVERY_S: Final = 1.0
_SLICE: Final = 16_384
"""Contents that are looked up at once: a millisecond of the event loop."""
_LOOKS_PER_PUBLICATION: Final = 2
_MOST_ALIVE_SETS: Final = 32


@dataclass(eq=False)
class Served:
    """The density of a placement as it is served.

    Attributes:
        alive: bool[n_contents], which contents of the table can be shown, by the keys of the services they may be of.
        base: The full snapshot that the table is made of.
    """

    placement: str
    options: Density
    params: DensityParams
    table: DensityTable | None = None
    version: int = 0
    base: int = 0
    loaded_at_s: float = 0.0
    seen: Pointer | None = None
    alive: dict[bytes, NDArray[np.bool_]] = field(default_factory=dict)
    _rates: dict[tuple[bytes, float], tuple[int, Rates]] = field(default_factory=dict)

    def rates(self, services: NDArray[np.uint64], smoothing: float, now_s: float) -> Rates | None:
        """The rates of the contents of these services (``uint64[n]``, keys); None: there is no snapshot, or nobody has
        asked for these services before, so that it is not known yet which of them can be shown."""
        of = services.tobytes()
        alive = self.alive.get(of)
        if self.table is None or alive is None:
            if len(self.alive) < _MOST_ALIVE_SETS:
                self.alive.setdefault(of, np.zeros(len(self.table) if self.table else 0, np.bool_))
            return None
        known = self._rates.get((of, smoothing))
        if known is None or known[0] != int(now_s) or known[1].table is not self.table:
            known = self._rates[of, smoothing] = int(now_s), self.table.rates(alive, now_s, smoothing)
        return known[1]

    def exchange(self, table: DensityTable, alive: Mapping[bytes, NDArray[np.bool_]]) -> None:
        """Serve another table, or other contents of it."""
        self.table = table
        self.alive = {**{of: np.zeros(len(table), np.bool_) for of in self.alive}, **alive}
        self._rates.clear()


class Densities:
    """All densities of a mesh."""

    def __init__(
        self, mesh: Mesh, snapshots: Snapshots, catalog: Catalog, clock: Clock, metrics: EngineMetrics
    ) -> None:
        self._snapshots = snapshots
        self._catalog = catalog
        self._clock = clock
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="densities", initializer=_let_requests_go_first)
        dimensions = mesh.vectors.dimensions if mesh.vectors else 0
        self.served = {
            key: Served(key[0], options, options.params(dimensions)) for key, options in mesh.densities().items()
        }

    def services_of(self, contents: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """``uint64[n]``: the service keys of contents that are in the catalog; 0 for others."""
        rows = self._catalog.find(contents)
        return np.where(rows >= 0, self._catalog.services(rows), 0)

    def popularity(self, placement: str, contents: NDArray[np.uint64], now_s: float) -> NDArray[np.float64]:
        """``float64[n]``: the decayed clicks of contents in a placement, by the first of its densities; 0 where that
        knows of none."""
        for (name, _), served in self.served.items():
            if name == placement and served.table is not None:
                return served.table.popularity(contents, now_s)
        return np.zeros(len(contents))

    async def run(self) -> None:
        """For ever, to be run in the background."""
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())
            for model, served in self.served.items():
                group.create_task(self._follow(model[1], served))
                group.create_task(self._look_alive(served))

    async def poll(self) -> None:
        """Look once for newer versions, and load them. Never raises."""
        for (_, model), served in self.served.items():
            await self._poll(model, served)

    async def _follow(self, model: str, served: Served) -> None:
        while True:
            await self._poll(model, served)
            await self._clock.sleep(served.options.publish_every / _LOOKS_PER_PUBLICATION)

    async def _look_alive(self, served: Served) -> None:
        while True:
            await self._clock.sleep(ALIVE_EVERY_S)
            if served.table is not None:
                table = served.table
                alive = await self._alive(table, list(served.alive))
                if served.table is table:
                    served.exchange(table, alive)

    async def _poll(self, model: str, served: Served) -> None:
        labels = (served.placement, model)
        work = outages.work(f"density {served.placement}/{model}")
        pointer: Pointer | None = None
        try:
            pointer = await self._snapshots.moved(*labels, served.seen)
            if pointer is not None:
                await self._load(model, served, pointer)
            work.well()
        except (BadSnapshot, BanditError) as error:
            reason = error.reason if isinstance(error, BadSnapshot) else "tensors"
            if reason == "missing":
                # A newer version has come, and what the pointer named is gone; the next look finds the newer one.
                served.seen = None
            else:
                served.seen = pointer
            self._metrics.model_refused.labels(*labels, reason).inc()
            log.error("density refused", placement=labels[0], model=model, served=served.version, error=str(error))
        except (MeshError, OSError) as error:
            self._metrics.model_unread.labels(*labels).inc()
            work.failed(error)

    async def _load(self, model: str, served: Served, pointer: Pointer) -> None:
        newest = await self._snapshots.load(served.placement, model, pointer.version)
        base = newest.manifest.base
        table = served.table
        if table is None or base != served.base:
            full = await self._snapshots.load(served.placement, model, base) if base else newest
            _verify(full, served.params)
            build = partial(DensityTable.of, served.params, full.tensors, served.options.coarse)
            table = await asyncio.get_running_loop().run_in_executor(self._thread, build)
        if base:
            table = await asyncio.get_running_loop().run_in_executor(self._thread, table.with_delta, newest.tensors)
        alive = await self._alive(table, list(served.alive), served)
        served.exchange(table, alive)
        # Only now: with the store away in between, nobody might announce anything again.
        served.seen = pointer
        served.version, served.base = pointer.version, base or pointer.version
        served.loaded_at_s = self._clock.now_s()
        manifest = newest.manifest
        self._metrics.model_version.labels(served.placement, model).set(manifest.version)
        self._metrics.model_published.labels(served.placement, model).set(manifest.published_at_ms / 1000)
        log.debug(
            "density loaded", placement=served.placement, version=manifest.version, base=base, contents=len(table)
        )

    async def _alive(
        self, table: DensityTable, services: Sequence[bytes], served: Served | None = None
    ) -> dict[bytes, NDArray[np.bool_]]:
        """``bool[n]`` for each set of services: which contents of the table can be shown now.

        Piece by piece, so that no request waits for all. ``served``: who has the answer for contents of the same full
        snapshot already, which may be a second old.
        """
        n, begin = len(table), 0
        found = {of: np.zeros(n, np.bool_) for of in services}
        if served is not None and served.table is not None and served.table.base is table.base:
            begin = len(table.base["contents"])
            for of in services:
                found[of][:begin] = served.alive[of][:begin]
        for start in range(begin, n, _SLICE):
            rows = self._catalog.find(table.keys[start : start + _SLICE])
            for of in services:
                keys = np.frombuffer(of, np.uint64)
                found[of][start : start + _SLICE] = self._catalog.can_be_shown(rows, keys, self._clock.now_s())
            await asyncio.sleep(0)
        return found


def _let_requests_go_first() -> None:
    """On Linux a thread has a niceness of its own: tables are made with what time the requests leave."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + 10)


def _verify(full: Snapshot, params: DensityParams) -> None:
    """Raises BadSnapshot for a base that is itself a delta, or of something else."""
    expected: dict[str, Any] = {"features": params.features, "dimensions": params.dimensions}
    found = {name: full.manifest.params.get(name) for name in expected}
    if full.manifest.base or found != expected:
        raise BadSnapshot("params", f"version {full.manifest.version} is {found} with base {full.manifest.base}")
