"""What is shown to users who have no candidates (left): one of the placement's most popular contents, by the last
snapshot alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.exploration.choice import Choice, choose
from services.crs_engine.catalog import Catalog
from services.crs_engine.pipeline.batch import FALLBACK_SOURCE, Pool
from services.crs_engine.popular_contents import PopularContents


def propose(users: NDArray[np.bool_], popular: PopularContents, catalog: Catalog) -> Pool:
    """The popular contents as candidates of those users. ``users``: bool[n_users], who needs them."""
    counts = np.where(users, len(popular), 0)
    offsets = np.zeros(len(users) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    n = int(users.sum())
    return Pool(
        offsets,
        np.tile(popular.keys, n),
        np.tile(popular.services, n),
        np.full(n * len(popular), FALLBACK_SOURCE),
        np.tile(catalog.find(popular.keys), n),
    )


def shares(pool: Pool, kept: NDArray[np.bool_], popular: PopularContents) -> NDArray[np.float64]:
    """``float64[n_kept]``: the probability of each kept content, in proportion to its weight in the popular list."""
    weights = np.tile(popular.weights, len(kept) // max(len(popular), 1))[kept]
    offsets = segments.kept_offsets(pool.offsets, kept)
    drawn: NDArray[np.float64] = weights / np.repeat(segments.sums(weights, offsets), np.diff(offsets))
    return drawn


def draw(
    probabilities: NDArray[np.float64], offsets: NDArray[np.int64], count: int, rng: np.random.Generator
) -> Choice:
    """Up to ``count`` different contents a user, one position after the other; the propensity of each is given those
    before it."""
    n_users = len(offsets) - 1
    index = np.full((n_users, count), -1, np.int64)
    propensity = np.zeros((n_users, count))
    left = probabilities.copy()
    counts = np.diff(offsets)
    for position in range(count):
        has_some = segments.sums((left > 0).astype(np.int64), offsets) > 0
        if not has_some.any():
            break
        total = np.repeat(segments.sums(left, offsets), counts)
        now = np.divide(left, total, out=np.zeros_like(left), where=total > 0)
        chosen, chance = choose(now, offsets, rng)
        index[:, position] = np.where(has_some, chosen, -1)
        propensity[:, position] = np.where(has_some, chance, 0.0)
        left[index[has_some, position]] = 0.0
    return Choice(index, propensity)
