"""The baseline that knows nothing: every candidate has mean 0 and deviation 0, so every exploration draws uniformly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Examples, Scores
from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.policy import PolicyParams, Tensors


class UniformRandomParams(PolicyParams):
    """`random` has no parameters."""


class UniformRandom:
    """See the module. No state."""

    name: ClassVar[str] = "random"
    Params: ClassVar[type[PolicyParams]] = UniformRandomParams
    learns: ClassVar[bool] = False
    merges: ClassVar[bool] = True
    shares: ClassVar[bool] = False

    def __init__(self, params: UniformRandomParams | None = None) -> None:
        self.params = params or UniformRandomParams()

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`: zeros."""
        return Scores(np.zeros(len(candidates), np.float32), np.zeros(len(candidates), np.float32))

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`: there is nothing to learn."""

    def start_epoch(self) -> None:
        """See `Policy.start_epoch`: there is nothing to count."""

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: none."""
        return {}

    @classmethod
    def from_tensors(cls, params: UniformRandomParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        if tensors:
            raise InvalidTensors(f"random has none, got {', '.join(sorted(tensors))}", field="tensors")
        return cls(params)

    def merge(self, other: Self) -> None:
        """See `Policy.merge`: nothing and nothing is nothing."""
