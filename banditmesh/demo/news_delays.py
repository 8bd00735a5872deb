"""How long a click takes until every engine ranks by it, measured at the engines themselves."""

from __future__ import annotations

import asyncio
import os
import re
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from banditmesh.local.service import Process
from banditmesh.local.stack import LocalMesh
from banditmesh.runtime.snapshots import BadSnapshot, Snapshots
from banditmesh.runtime.store import Store, open_store

LOOK_EVERY_S: Final = 0.2
_TIMEOUT_S: Final = 5.0
_VERSION: Final = re.compile(r"^banditmesh_engine_model_version\{([^}]*)\} (\S+)$", re.MULTILINE)


@dataclass
class Delays:
    """What the density's versions say, in the store and in the engines.

    Attributes:
        watermarks_s: The newest click that each version holds, in seconds since the Unix epoch.
        seconds: Each time that an engine took up a version, the age of the oldest click that it had not had before.
        bytes: Of each version.
        deltas: How many were deltas.
        engines: Who was looked at.
    """

    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    deltas: int = 0
    engines: int = 0
    watermarks_s: dict[int, float] = field(default_factory=dict)

    @property
    def p95_s(self) -> float:
        """Nineteen in twenty are no older; infinite when there is no version."""
        return float(np.quantile(self.seconds, 0.95)) if self.seconds else float("inf")

    def taken_up(self, before: int, at_s: float) -> None:
        """Note that an engine has a version in the place of ``before``."""
        if before in self.watermarks_s:
            self.seconds.append(at_s - self.watermarks_s[before])


@contextmanager
def another_engine(mesh: LocalMesh) -> Iterator[Process]:
    """A second CRS Engine beside the mesh's own."""
    folder = mesh.folder / "services" / "crs_engine-2"
    argv = ["services.crs_engine"]
    with Process("crs_engine-2", folder, logs=mesh.logs, argv=argv, env=mesh.settings, ca=mesh.ca) as running:
        yield running


async def watch(delays: Delays, mesh: LocalMesh, placement: str, engines: Sequence[Process]) -> None:
    """Fill ``delays``, for ever."""
    # boto3 looks for them in the environment, and the store on this machine has keys of its own.
    os.environ.update({name: value for name, value in mesh.settings.items() if name.startswith("AWS_")})
    delays.engines = len(engines)
    store = open_store(mesh.settings["BANDITMESH_STORE"])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_watch_store(delays, store, placement))
            for engine in engines:
                group.create_task(_watch_engine(delays, engine, placement))
    finally:
        await store.close()


async def _watch_store(delays: Delays, store: Store, placement: str) -> None:
    snapshots = Snapshots(store, None)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            models = {key.split("/")[2] async for key in store.list(f"models/{placement}/density-")}
            for model in models:
                pointer = await snapshots.pointer(placement, model)
                if pointer is None or pointer.version in delays.watermarks_s:
                    continue
                manifest = await snapshots.manifest(placement, model, pointer.version)
                delays.deltas += manifest.base > 0
                delays.bytes.append(sum(each.nbytes for each in manifest.tensors.values()))
                delays.watermarks_s[pointer.version] = manifest.watermark_ms / 1000
        except BadSnapshot:
            continue  # it was deleted between two questions


async def _watch_engine(delays: Delays, engine: Process, placement: str) -> None:
    has = 0
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        version = served_version(await asyncio.to_thread(page, engine.metrics_url), placement)
        if version > has:
            delays.taken_up(has, time.time())
            has = version


def page(url: str) -> str:
    """What a process says at its metrics port. Raises OSError."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        return bytes(answer.read()).decode()


def served_version(metrics: str, placement: str) -> int:
    """The version of a placement's density that an engine's metrics name; 0: it has none."""
    found = [
        float(value)
        for labels, value in _VERSION.findall(metrics)
        if f'placement="{placement}"' in labels and 'model="density-' in labels
    ]
    return int(max(found, default=0))
