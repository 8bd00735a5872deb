"""Random batches for the tests, and the hypothesis strategies that draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from banditmesh.bandits.batch import Candidates, Examples, SparseRows

KEYS = np.array([3, 17, 2**40, 2**63 + 5, 2**64 - 1], np.uint64)
IDS = np.array([0, 7, 99, 2**31, 2**32 - 1, 123456789], np.uint32)


def sparse_rows(rng: np.random.Generator, n: int, longest: int = 5) -> SparseRows:
    """Rows of 0 to `longest` features out of few ids, so that ids come twice in a row and rows are empty."""
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, longest + 1, n))]).astype(np.int64)
    return SparseRows.checked(offsets, rng.choice(IDS, offsets[-1]), rng.normal(size=offsets[-1]))


def candidates(rng: np.random.Generator, counts: Sequence[int]) -> Candidates:
    """Decisions with these numbers of candidates."""
    n = sum(counts)
    return Candidates.checked(
        offsets=np.cumsum([0, *counts]),
        contents=rng.choice(KEYS, n),
        logics=rng.choice(KEYS, n),
        services=rng.choice(KEYS, n),
        context=sparse_rows(rng, len(counts)),
        features=sparse_rows(rng, n),
    )


def examples(rng: np.random.Generator, n: int) -> Examples:
    """Rows to learn from, a second apart on average, not always in the order of their times."""
    rewards = rng.choice([0.0, 0.5, 1.0], n)
    keys = rng.choice(KEYS, n)
    return Examples.checked(
        contents=keys,
        logics=rng.choice(KEYS, n),
        services=rng.choice(KEYS, n),
        features=sparse_rows(rng, n),
        rewards=rewards,
        propensities=rng.uniform(0.1, 1.0, n),
        times_s=1.7e9 + np.arange(n) + rng.uniform(-2, 2, n),
        clicked=rewards == 1.0,
        names=[("news", str(key)) for key in keys],
    )


def generators() -> st.SearchStrategy[np.random.Generator]:
    """Seeded generators, so that hypothesis can shrink to a seed."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def candidate_counts() -> st.SearchStrategy[list[int]]:
    """Numbers of candidates of a few decisions; some have none, some one, some many."""
    return st.lists(st.sampled_from([0, 1, 2, 3, 9, 40]), min_size=0, max_size=5)
