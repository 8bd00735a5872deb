from __future__ import annotations

import numpy as np

from banditmesh.ope.bootstrap import PoissonBootstrap


def counts(n_rows: int, replicates: int, seed: int = 0) -> np.ndarray:
    """[n_rows, replicates]: how often each row counts."""
    found = []
    for row in range(n_rows):
        bootstrap = PoissonBootstrap(replicates, seed)
        bootstrap.add(np.array([row], np.uint64), np.ones((1, 2)))
        found.append(bootstrap.sums[:, 0])
    return np.array(found)


def test_a_row_counts_poisson_of_one_times() -> None:
    drawn = counts(200, 500)
    share = np.bincount(drawn.astype(int).ravel(), minlength=4)[:4] / drawn.size
    np.testing.assert_allclose(share, [0.3679, 0.3679, 0.1839, 0.0613], atol=0.01)


def test_rows_and_replicates_are_independent() -> None:
    drawn = counts(40, 2000)
    between_rows = np.corrcoef(drawn)[np.triu_indices(40, 1)]
    between_replicates = np.corrcoef(counts(2000, 40), rowvar=False)[np.triu_indices(40, 1)]
    assert np.abs(between_rows).max() < 0.1
    assert np.abs(between_replicates).max() < 0.1


def test_another_seed_draws_otherwise() -> None:
    assert (counts(10, 50, seed=1) != counts(10, 50, seed=2)).any()


def test_no_replicates_cost_nothing_and_say_nothing() -> None:
    bootstrap = PoissonBootstrap(0, 0)
    bootstrap.add(np.arange(5, dtype=np.uint64), np.ones((5, 2)))
    assert bootstrap.sums.shape == (0, 2)
