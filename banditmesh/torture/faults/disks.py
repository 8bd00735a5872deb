"""Disks that are full: the engine's model cache, Kafka's log, and the folder of ``banditmesh up``."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from banditmesh.local.kafka import Kafka
from banditmesh.torture.oracle import SILENCE, Finding
from banditmesh.torture.scene import Scene
from banditmesh.torture.world import READY_WITHIN_S

SIZES_MB: Final = {"cache": 16, "kafka": 96, "up": 24}
FILLER: Final = "filler"
_UP_S: Final = 120
_NO_SPACE: Final = "No space left on device"


def mount(folder: Path) -> dict[str, Path]:
    """Small file systems in memory, by name; empty where this user may not mount any."""
    mounted: dict[str, Path] = {}
    for name, size_mb in SIZES_MB.items():
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(path)]
        if not shutil.which("mount") or subprocess.run(argv, capture_output=True, check=False).returncode != 0:
            unmount(mounted)
            return {}
        mounted[name] = path
    return mounted


def unmount(mounted: dict[str, Path]) -> None:
    """Give them back."""
    for path in mounted.values():
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


def fill(folder: Path, leave: int = 0) -> None:
    """Take all room in a file system but ``leave`` bytes."""
    with (folder / FILLER).open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with suppress(OSError):
            while True:
                file.write(bytes(512))
        if leave:
            file.truncate(max(file.tell() - leave, 0))


def empty(folder: Path) -> None:
    """Give the room back."""
    (folder / FILLER).unlink(missing_ok=True)


async def model_cache(scene: Scene) -> None:
    """The disk under the engines' model cache is full while models are published."""
    disk = scene.world.shape.small_disks["cache"]
    scene.note("the disk under the model cache is full")
    fill(disk)
    await scene.sleep(5.0)
    scene.must_have_said(["crs_engine"], _NO_SPACE, "The model cache's disk is full")
    engine = scene.world.supervisor.of("crs_engine")[0]
    await scene.kill(engine)
    await scene.world.supervisor.until_ready([engine], READY_WITHIN_S)
    empty(disk)
    scene.note("there is room again")
    await scene.sleep(3.0)


async def kafka_log(scene: Scene) -> None:
    """The disk under Kafka is full; the broker ends, room is made, and it is started again."""
    disk, broker = scene.world.shape.small_disks["kafka"], scene.world.kafka
    assert isinstance(broker, Kafka)
    call = scene.world.supervisor.call
    scene.note("the disk under kafka is full")
    fill(disk)
    await scene.sleep(8.0)
    scene.note("room is made under kafka; the broker has ended" if not broker.running else "room is made under kafka")
    empty(disk)
    await call(broker.kill)
    await call(broker.start)
    scene.note("the broker is back")
    await scene.sleep(3.0)


async def up_folder(scene: Scene) -> None:
    """The disk under the folder of ``banditmesh up`` is full: it says so and leaves nothing running."""
    disk = scene.world.shape.small_disks["up"]
    scene.note("banditmesh up on a full disk")
    fill(disk, leave=64 * 1024)
    ended = await scene.world.supervisor.call(lambda: _run_up(disk / "mesh"))
    said = ended.stdout + ended.stderr
    if ended.returncode in (0, -9) or "Traceback (most recent call last)" in ended.stderr or not _names_it(said):
        scene.findings.append(Finding(SILENCE, "banditmesh up", f"exit code {ended.returncode}: {said[-400:]}"))
    empty(disk)


def _names_it(said: str) -> bool:
    return os.strerror(errno.ENOSPC).lower() in said.lower()


def _run_up(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "banditmesh.cli", "up", "--dir", str(folder)]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=_UP_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, -9, "", f"it did not end within {_UP_S} s")
