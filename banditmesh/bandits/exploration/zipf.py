"""The better the rank, the likelier: by the order of the means alone, however far apart they are."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.exploration.base import TIE, Beliefs, Exploration


class Zipf(Exploration):
    """p proportional to rank^-exponent, the best mean having rank 1; ties share what their ranks get together.

    For means that say which candidate is better but not by how much, such as the age of a content.
    """

    name: ClassVar[str] = "zipf"

    exponent: float = Field(
        default=1.0, ge=0, le=16, description="How steeply the probability falls with the rank; 0 is uniform."
    )

    def _shares(self, beliefs: Beliefs, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = segments.lengths(offsets)
        order = np.lexsort((-beliefs.mean, segments.owners(offsets)))
        weights = (1.0 + np.arange(len(order)) - np.repeat(offsets[:-1], counts)) ** -self.exponent
        means = beliefs.mean[order]
        first = np.ones(len(order) + 1, np.bool_)  # of candidates that tie; one more as the end of the last
        near = TIE * np.repeat(np.abs(segments.maxima(beliefs.mean, offsets)), counts)
        first[1:-1] = means[:-1] - means[1:] > near[:-1]
        first[offsets] = True
        ties = np.flatnonzero(first)
        shares = np.empty(len(order))
        shares[order] = np.repeat(segments.sums(weights, ties) / segments.lengths(ties), segments.lengths(ties))
        return np.asarray(shares / np.repeat(segments.sums(shares, offsets), counts))
