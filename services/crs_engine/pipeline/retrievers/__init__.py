"""Sources that retrieve: a model in the engine proposes. One is a small file, a line where ``bootstrap.py`` builds
them, and a field in ``Retrieve`` of ``banditmesh.runtime.retrieval_options``."""

from __future__ import annotations

from services.crs_engine.pipeline.retrievers.als import Als
from services.crs_engine.pipeline.retrievers.base import Everybodys, Retriever
from services.crs_engine.pipeline.retrievers.density import Density
from services.crs_engine.pipeline.retrievers.newest import Newest
from services.crs_engine.pipeline.retrievers.popularity import Popularity

__all__ = ["Als", "Density", "Everybodys", "Newest", "Popularity", "Retrievers"]


class Retrievers:
    """All retrievers of an engine, by the name that ``mesh.yaml`` calls them.

    Attributes:
        everybodys: Those that may be fallbacks.
    """

    def __init__(self, everybodys: list[Everybodys], others: list[Retriever] | None = None) -> None:
        self.everybodys = {each.name: each for each in everybodys}
        self._all: dict[str, Retriever] = {**self.everybodys, **{each.name: each for each in others or []}}

    def __getitem__(self, name: str) -> Retriever:
        return self._all[name]
