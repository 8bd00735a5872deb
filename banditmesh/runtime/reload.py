"""``mesh.yaml`` followed while the service runs: what changes there is in effect within seconds, without a restart.

The content is compared, not the time: a ConfigMap is swapped by moving a symbolic link, which file notifications miss.
A file that is broken, or that changes what cannot change while the mesh runs, is refused: the old one stays in effect,
the log says why in the words of ``banditmesh check``, and so does an event of the pod, where the service may make one;
a metric says that it is so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.config_file import read_config
from banditmesh.runtime.errors import ConfigurationError, MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.mesh import Mesh, parse_mesh
from banditmesh.runtime.pod_events import PodEvents
from banditmesh.runtime.serve import Server

log = get_logger(__name__)

LOOK_EVERY_S: Final = 5.0
FIXED: Final = ("kafka",)
"""Sections that must stay as they are: users would move between partitions, records between topics."""


class Reloader:
    """Looks at the file of one service."""

    def __init__(
        self, path: Path, server: Server, build: Callable[[], Awaitable[None]], events: PodEvents | None = None
    ) -> None:
        """``build``: the bootstrap, which reads ``Server.mesh_text``; for :meth:`Server.rebuild`."""
        self._path = path
        self._server = server
        self._build = build
        self._events = events
        self._clock: Clock = server.clock
        self._metrics = _Metrics(server.registry)
        self._text = _readable(path)
        self._mesh: Mesh | None = None
        """What is in effect; None: as the text says."""
        self._looked_at = self._text
        if self._text:
            server.mesh_text = self._text

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Look once. Never raises: what fails is said, and tried again or left until the file changes."""
        try:
            text = await asyncio.to_thread(read_config, self._path)
        except ConfigurationError as error:
            if self._looked_at:  # once
                await self._refuse("", str(error))
            return
        if text == self._looked_at:
            return
        try:
            mesh, changed = await asyncio.to_thread(self._read, text)
        except ConfigurationError as error:
            await self._refuse(text, str(error))
            return
        except Exception as error:  # a bug; whoever mends the file is still followed
            log.exception("the new mesh.yaml could not be looked at")
            await self._refuse(text, f"{self._path}: could not be looked at: {type(error).__name__}")
            return
        if changed:
            log.info("mesh.yaml has changed", path=str(self._path), sections=changed)
            await self._take(text, mesh)
        else:
            self._taken(text, mesh)

    def _read(self, text: str) -> tuple[Mesh, list[str]]:
        """The mesh, and its sections that are not as those in effect; on a thread, for there may be thousands of
        placements. Raises ConfigurationError for a file that cannot count."""
        mesh, in_effect = parse_mesh(text, origin=str(self._path)), self._in_effect()
        fixed = _fixed_changes(in_effect, mesh)
        if fixed:
            raise ConfigurationError(
                f"{self._path} changes what cannot change while the mesh runs:",
                tuple(fixed),
                hint="put these back; for other values make new topics, with another prefix, and restart",
            )
        return mesh, _changed(in_effect, mesh)

    async def _take(self, text: str, mesh: Mesh) -> None:
        before, self._server.mesh_text = self._server.mesh_text, text
        try:
            await self._server.rebuild(self._build)
        except MeshError as error:  # such as: Kafka is away. The file is right, so it is tried again
            self._server.mesh_text = before
            self._metrics.reloads.labels("failed").inc()
            self._metrics.stale.set(1)
            log.warning("the new mesh.yaml is not in effect yet; the old one stays", error=str(error))
            return
        except Exception:  # a bug; the service goes on as it was
            self._server.mesh_text = before
            self._metrics.reloads.labels("failed").inc()
            self._metrics.stale.set(1)
            self._looked_at = text
            log.exception("the new mesh.yaml could not be brought into effect; the old one stays")
            return
        self._taken(text, mesh)
        self._metrics.reloads.labels("taken").inc()
        log.info("the new mesh.yaml is in effect", path=str(self._path))
        if self._events is not None:
            await self._events.send("Normal", "MeshYamlTaken", "the new mesh.yaml is in effect")

    def _taken(self, text: str, mesh: Mesh) -> None:
        self._text = self._looked_at = text
        self._mesh = mesh
        self._metrics.stale.set(0)

    async def _refuse(self, text: str, message: str) -> None:
        self._looked_at = text
        self._metrics.reloads.labels("refused").inc()
        self._metrics.stale.set(1)
        log.error("the new mesh.yaml is refused; the old one stays in effect", error=message)
        if self._events is not None:
            await self._events.send("Warning", "MeshYamlRefused", f"the old mesh.yaml stays in effect: {message}")

    def _in_effect(self) -> Mesh:
        if self._mesh is None:
            self._mesh = parse_mesh(self._text, origin=str(self._path))
        return self._mesh


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.reloads = Counter(
            "banditmesh_mesh_reloads_total",
            "Changes of mesh.yaml: taken, refused (broken, or it changes what cannot change), failed (tried again)",
            ["result"],
            registry=registry,
        )
        self.stale = Gauge(
            "banditmesh_mesh_stale",
            "1 while mesh.yaml is not what is in effect; the log says why",
            registry=registry,
        )


def _readable(path: Path) -> str:
    """What the file says; empty when it cannot be read, which the bootstrap will find, and say why."""
    try:
        return read_config(path)
    except ConfigurationError:
        return ""


def _changed(old: Mesh, new: Mesh) -> list[str]:
    return [name for name in Mesh.model_fields if getattr(old, name) != getattr(new, name)]


def _fixed_changes(old: Mesh, new: Mesh) -> list[str]:
    found = []
    for section in FIXED:
        before: dict[str, Any] = getattr(old, section).model_dump()
        after: dict[str, Any] = getattr(new, section).model_dump()
        found += [
            f"{section}.{key}: is {before[key]!r} in effect, {value!r} in the file"
            for key, value in after.items()
            if value != before[key]
        ]
    return found
