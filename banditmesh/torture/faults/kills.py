"""Processes that die, at any moment, and more or fewer joiners."""

from __future__ import annotations

from typing import Final

from banditmesh.torture.scene import Scene
from banditmesh.torture.world import READY_WITHIN_S

KILLS: Final = 12


async def random_kills(scene: Scene) -> None:
    """SIGKILL of any of the five at random moments."""
    for _ in range(KILLS):
        await scene.sleep(0.2, 1.6)
        await scene.kill_one()


async def scale_joiners(scene: Scene) -> None:
    """One joiner, then three, then two, during traffic; the one that is too many dies by SIGKILL."""
    world, supervisor = scene.world, scene.world.supervisor
    others = supervisor.of("joiner")[1:]
    for other in others:
        scene.note(f"SIGTERM {other.name}: one joiner is left")
        await supervisor.retire(other)
    await scene.sleep(2.0, 4.0)
    scene.note("three joiners")
    added = [world.add("joiner", number) for number in (1, 2)]
    await supervisor.until_ready(added, READY_WITHIN_S)
    await scene.sleep(2.0, 4.0)
    last = added[-1]
    last.wanted = False
    await scene.kill(last)
    await supervisor.retire(last)
    scene.note("two joiners")
    await scene.sleep(1.0)
