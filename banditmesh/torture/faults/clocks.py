"""Clocks that are wrong by an hour. (Apps whose clocks lie are in all traffic.)"""

from __future__ import annotations

from typing import Final

from banditmesh.torture.scene import Scene
from banditmesh.torture.world import READY_WITHIN_S

HOUR_S: Final = 3600
SKEWS: Final = {"importer": (1, -1), "joiner": (1, -1), "learner": (-1, 1)}


async def wrong_by_an_hour(scene: Scene) -> None:
    """Importers, joiners and learners are an hour ahead or behind; then the engine is behind and the tracker ahead."""
    await _skew(scene, SKEWS)
    await scene.sleep(5.0)
    await _skew(scene, dict.fromkeys(SKEWS, (0, 0)))
    await _skew(scene, {"crs_engine": (-1, 0), "tracker": (0, 1)})
    await scene.sleep(4.0)
    await _skew(scene, {"crs_engine": (0, 0), "tracker": (0, 0)})


async def engine_from_the_future(scene: Scene) -> None:
    """An engine is an hour ahead: the tracker refuses its tokens, since anybody could have made them up."""
    scene.refusals_declared = True
    scene.declared.append("tokens from the future are refused, and the app is told")
    await _skew(scene, {"crs_engine": (1, 0)})
    await scene.sleep(4.0)
    await _skew(scene, {"crs_engine": (0, 0)})


async def _skew(scene: Scene, hours: dict[str, tuple[int, int]]) -> None:
    """Start replicas anew, one after the other, with other clocks."""
    supervisor = scene.world.supervisor
    for service, skews in hours.items():
        for number, replica in enumerate(list(supervisor.of(service))[: len(skews)]):
            offset = skews[number] * HOUR_S
            scene.note(f"{replica.name} starts anew, its clock {offset:+d} s")
            replica.process.prepare = [["banditmesh.torture.skewed", str(offset)]]
            await scene.kill(replica)
            await supervisor.until_ready([replica], READY_WITHIN_S)
