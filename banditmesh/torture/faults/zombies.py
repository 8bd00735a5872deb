"""Processes that stop for longer than anybody waits for them, and then go on as if nothing had been."""

from __future__ import annotations

from banditmesh.torture.scene import Scene
from banditmesh.torture.world import READY_WITHIN_S, SESSION_S


async def joiner(scene: Scene) -> None:
    """A joiner is stopped past its session's timeout, its partitions are taken over, and it goes on."""
    supervisor = scene.world.supervisor
    zombie = supervisor.of("joiner")[int(scene.rng.integers(len(supervisor.of("joiner"))))]
    await supervisor.until_ready([zombie], READY_WITHIN_S)
    scene.note(f"SIGSTOP {zombie.name}")
    supervisor.suspend(zombie)
    await scene.sleep(SESSION_S + 3.0, SESSION_S + 6.0)
    scene.note(f"SIGCONT {zombie.name}")
    supervisor.resume(zombie)
    await scene.sleep(4.0)


async def learner(scene: Scene) -> None:
    """A learner is stopped, another one of the same ordinal takes over and publishes, and the first goes on."""
    supervisor = scene.world.supervisor
    zombie = supervisor.of("learner")[0]
    await supervisor.until_ready([zombie], READY_WITHIN_S)
    scene.note(f"SIGSTOP {zombie.name}")
    supervisor.suspend(zombie)
    scene.note("another learner of ordinal 0")
    other = scene.world.add("learner", 0, name="learner-0-again")
    await supervisor.until_ready([other], READY_WITHIN_S)
    await scene.sleep(3.0, 5.0)
    scene.note(f"SIGCONT {zombie.name}")
    supervisor.resume(zombie)
    await scene.sleep(4.0)
    await supervisor.retire(other)


async def two_learners(scene: Scene) -> None:
    """Two learners of the same shards run and publish side by side."""
    supervisor = scene.world.supervisor
    scene.note("a second learner of ordinal 0")
    second = scene.world.add("learner", 0, name="learner-0-twin")
    await supervisor.until_ready([second], READY_WITHIN_S)
    await scene.sleep(6.0, 9.0)
    await supervisor.retire(second)
