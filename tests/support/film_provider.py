"""A Data Provider process for end-to-end tests: ``python -m tests.support.film_provider HOST:PORT``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from banditmesh.provider import Content, DataProvider


class FilmProvider(DataProvider):
    """Knows every film by a title made of its id."""

    async def get_contents(self, service: str, content_ids: Sequence[str]) -> Iterable[Content]:
        return [Content(content_id, title=f"The film {content_id}") for content_id in content_ids]


if __name__ == "__main__":
    sys.exit(FilmProvider().run(sys.argv[1]))
