"""The user vector: the weighted mean of the vectors of the contents that the user opened last, of length 1.

u = Σ_a w_a·a / ‖Σ_a w_a·a‖, the mean of Okura et al. 2017 ("Embedding-based News Recommendation for Millions of Users",
§4) with weights: w_a = 2^(−age / recency) · (1 + target·[target done] + dwell·log₂(1 + seconds / 30)) · (1 + c_a)^(−β),
where c_a is how often the content is clicked of late: what everybody opens says little about one user.

In a token it travels as one signed byte a dimension, and everybody computes with what those bytes say, so that the
learner sees the user exactly where the engine did.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments

Floats = NDArray[np.float32]
MOST_TOKEN_DIMENSIONS: Final = 64
"""More are projected to so many: distances stay within some percent (Johnson & Lindenstrauss), and tokens small."""
_DWELL_S: Final = 30.0


@dataclass(frozen=True)
class Weights:
    """See the module.

    Attributes:
        recency_s: After so long a click weighs half.
        target: What a target action adds to a click's weight of 1.
        dwell: What staying for 30 seconds adds, and each doubling of (1 + seconds / 30) again.
        inverse_popularity: β.
    """

    recency_s: float
    target: float
    dwell: float
    inverse_popularity: float

    def of(
        self,
        age_s: NDArray[np.float64],
        target: NDArray[np.bool_],
        dwell_s: NDArray[np.float64],
        popularity: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """``float64[n]``: the weight of each click."""
        weights: NDArray[np.float64] = np.exp2(-np.maximum(age_s, 0) / self.recency_s)
        weights *= 1 + self.target * target + self.dwell * np.log2(1 + dwell_s / _DWELL_S)
        weights *= (1 + popularity) ** -self.inverse_popularity
        return weights


def token_dimensions(dimensions: int) -> int:
    """How many dimensions a user vector has, given those of contents' vectors."""
    return min(dimensions, MOST_TOKEN_DIMENSIONS)


def pooled(vectors: Floats, weights: NDArray[np.float64], offsets: NDArray[np.int64]) -> Floats:
    """``float32[n_users, d]``: the users' vectors, as their bytes say; all 0 where a user has none.

    Args:
        vectors: ``float32[n, D]``, of the contents of all users, flat; rows of zeros are contents without one.
        weights: ``float64[n]``.
        offsets: ``int64[n_users + 1]``.
    """
    sums = segments.row_sums(vectors * weights[:, None].astype(np.float32), offsets)
    return unpack(pack(reduced(sums)), token_dimensions(vectors.shape[1]))


def reduced(vectors: Floats) -> Floats:
    """``float32[n, d]``: the vectors with the dimensions that a token has."""
    wide = vectors.shape[1]
    return vectors if wide <= MOST_TOKEN_DIMENSIONS else vectors @ _projection(wide)


def pack(vectors: Floats) -> list[bytes]:
    """Each vector as signed bytes, the largest component at ±127; nothing for a vector of zeros."""
    largest = np.abs(vectors).max(axis=1, initial=0)
    there = largest > 0
    scaled = np.rint(vectors * (127 / np.where(there, largest, 1))[:, None]).astype(np.int8)
    return [row.tobytes() if known else b"" for row, known in zip(scaled, there.tolist(), strict=True)]


def unpack(packed: list[bytes], dimensions: int) -> Floats:
    """``float32[n, d]``, of length 1; all 0 where the bytes are none, or not of so many dimensions."""
    nothing = bytes(dimensions)
    body = b"".join([each if len(each) == dimensions else nothing for each in packed])
    vectors = np.frombuffer(body, np.int8).reshape(len(packed), dimensions).astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    vectors /= np.where(lengths > 0, lengths, 1)[:, None]
    return vectors


@lru_cache(maxsize=4)
def _projection(dimensions: int) -> Floats:
    rng = np.random.default_rng(dimensions)
    drawn = rng.standard_normal((dimensions, MOST_TOKEN_DIMENSIONS)) / np.sqrt(MOST_TOKEN_DIMENSIONS)
    projection: Floats = drawn.astype(np.float32)
    return projection
