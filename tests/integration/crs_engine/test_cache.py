"""The recommendation cache on a real Redis: written behind the answer, read with the rest of the user."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.engine_world import MESH, World, engine_world
from tests.support.eventually import eventually

CACHED = MESH.replace("    experiment:", "    cache: {max_age: 10m}\n    experiment:")


def looked_up(world: World, result: str) -> float:
    return float(world.parts.metrics.cached.labels("head", result)._value.get())


async def test_what_was_scored_is_kept_until_the_user_does_a_target_action(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path, mesh=CACHED) as world:
        comics = [await world.hands.content("comics", f"c{n}") for n in range(3)]
        await world.hands.mapping("comics/new", {"ann": comics})
        await world.parts.live.reread()
        await world.select("ann")
        assert looked_up(world, "absent") == 1

        async def hit() -> bool:
            await world.select("ann")
            return looked_up(world, "hit") > 0

        await eventually(hit)
        await world.hands.reaction("ann", "target", "comics", "c0", "head", time.time())
        selection = await world.select("ann")
        assert looked_up(world, "target") == 1
        assert selection.content.content.content_id in {"c0", "c1", "c2"}
