"""The Data Provider of the news demo: articles of a simulated town. ``python -m banditmesh.demo.news_provider --address
HOST:PORT``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from banditmesh.demo.news_world import NewsWorld, day_of
from banditmesh.provider import Content, DataProvider


class NewsProvider(DataProvider):
    """Serves the articles, each with its vector. ``began``: a file that says when the town's midnight was, in seconds
    since the Unix epoch; it is written when the mesh is there."""

    def __init__(self, world: NewsWorld, began: Path) -> None:
        self._world = world
        self._began = began

    async def get_contents(self, service: str, content_ids: Sequence[str]) -> Iterable[Content]:
        numbers = [int(each) for each in content_ids if each.isdecimal()]
        began_s = float(self._began.read_text())
        return [self._content(number, began_s) for number in numbers if number < len(self._world.born_s)]

    def _content(self, number: int, began_s: float) -> Content:
        world = self._world
        # What is old can still be read up, and tells where those who have read it are.
        ends_s = None if number < world.yesterday else began_s + float(world.gone_s[number])
        return Content(
            str(number),
            title=f"{'Breaking: ' if world.breaking[number] else ''}what happened at {world.topic[number]} o'clock",
            attributes={"published_at": began_s + float(world.born_s[number])},
            expires_at=None if ends_s is None else datetime.fromtimestamp(ends_s, UTC),
            embedding=world.vectors[number].tolist(),
        )


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="host:port to serve gRPC on")
    parser.add_argument("--seed", type=int, required=True, help="of the town")
    parser.add_argument("--length", type=float, required=True, help="of its day, in seconds")
    parser.add_argument("--began", type=Path, required=True, help="file that says when it began")
    arguments = parser.parse_args()
    world = NewsWorld.make(day_of(arguments.length), arguments.seed)
    NewsProvider(world, arguments.began).run(arguments.address)


if __name__ == "__main__":
    main()
