"""What a retriever is: it proposes contents that nobody mapped to a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Scores
from services.crs_engine.compiled_placement import CompiledPlacement


@dataclass(frozen=True, eq=False)
class Retrieved:
    """Contents that are proposed to everybody in a placement, the best first.

    Attributes:
        contents: uint64[n], content keys.
        services: int64[n], positions in ``placement.services``.
    """

    contents: NDArray[np.uint64]
    services: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.contents)

    @classmethod
    def of(
        cls, contents: NDArray[np.uint64], service_keys: NDArray[np.uint64], placement: CompiledPlacement
    ) -> Retrieved:
        """The contents (uint64[n]) whose service the placement shows. ``service_keys``: uint64[n]."""
        same = service_keys[:, None] == placement.shown_services
        here = same.any(axis=1)
        return cls(contents[here], same[here].argmax(axis=1))


class Retriever(Protocol):
    """Proposes contents, and scores what is left of them. Both from what is in the process: nothing is awaited."""

    name: ClassVar[str]
    """As ``mesh.yaml`` calls it in ``sources`` and ``fallback``."""

    def retrieve(self, placement: CompiledPlacement) -> Retrieved:
        """What it proposes in this placement now."""
        ...

    def score(self, placement: CompiledPlacement, candidates: Candidates) -> Scores:
        """What it thinks of the candidates; a fallback draws by it. Features are not filled in."""
        ...
