"""An engine that retrieves has all live contents at its start, and what comes later soon after its announcement."""

from __future__ import annotations

from pathlib import Path

from banditmesh.runtime import keys
from tests.support.engine_world import MESH, engine_world
from tests.support.eventually import eventually_so

RETRIEVES = MESH.replace(
    "    sources: [weather/today, weather/tomorrow, comics/new, comics/similar]\n",
    "    fallback: none\n    retrieve: {from: [comics], newest: {share: 1}}\n",
)


async def test_what_the_index_names_is_there_at_the_start_and_what_changes_is_followed(
    fresh_redis: str, tmp_path: Path
) -> None:
    async with engine_world(fresh_redis, tmp_path) as before:
        await before.hands.content("comics", "old", published_at=1_000.0)
        await before.hands.store.client.sadd(keys.known_contents("comics"), "old", "expired long ago")
    async with engine_world(fresh_redis, tmp_path, mesh=RETRIEVES) as world:
        first = await world.select("ann")
        assert (first.content.content.content_id, first.content.logic) == ("old", "newest")
        assert len(world.parts.catalog) == 1  # what Redis does not have takes no room
        # Nobody names it, and it is here; hidden, it is not proposed, and it is again when it is not hidden any more.
        live = lambda: world.parts.catalog.count_live("comics", 1_000.0)  # noqa: E731
        for hidden, n in ((False, 2), (True, 1), (False, 2)):
            await world.hands.content("comics", "new", published_at=2_000.0, hidden=hidden)
            await eventually_so(lambda n=n: live() == n)
