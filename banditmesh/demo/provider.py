"""The Data Provider of the demo's services: titles, genres, years. ``python -m banditmesh.demo.provider --address
HOST:PORT``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from banditmesh.demo.movielens import Film, movielens, read_ratings
from banditmesh.provider import Content, DataProvider


class FilmProvider(DataProvider):
    """Serves what is known of the films."""

    def __init__(self, films: dict[str, Film]) -> None:
        self._films = films

    async def get_contents(self, service: str, content_ids: Sequence[str]) -> Iterable[Content]:
        return [
            _content(content_id, self._films[content_id]) for content_id in content_ids if content_id in self._films
        ]


def _content(content_id: str, film: Film) -> Content:
    attributes: dict[str, list[str]] = {"genre": list(film.genres)}
    return Content(content_id, title=film.title or content_id, attributes=attributes)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="host:port to serve gRPC on")
    parser.add_argument("--cache", type=Path, required=True, help="folder that MovieLens lies in")
    parser.add_argument("--ratings", type=Path, help="other ratings than MovieLens 100k")
    arguments = parser.parse_args()
    ratings = read_ratings(arguments.ratings) if arguments.ratings else movielens(arguments.cache)
    FilmProvider({item: ratings.films.get(item, Film(title=item)) for item in ratings.items}).run(arguments.address)


if __name__ == "__main__":
    main()
