"""Sources that retrieve: a model in the engine proposes. One is a small file, a line where ``bootstrap.py`` builds
them, and a name in ``RETRIEVERS`` of ``banditmesh.runtime.mesh``."""

from __future__ import annotations

from services.crs_engine.pipeline.retrievers.base import Retriever
from services.crs_engine.pipeline.retrievers.newest import Newest
from services.crs_engine.pipeline.retrievers.popularity import Popularity

__all__ = ["Newest", "Popularity", "by_name"]


def by_name(*retrievers: Retriever) -> dict[str, Retriever]:
    """The retrievers, by the name that ``mesh.yaml`` calls them."""
    return {each.name: each for each in retrievers}
