"""Replay of a uniformly logged stream by rejection (Li, Chu, Langford, Wang 2011, Algorithm 2), with dense LinUCB.

    python -m benchmarks.rejection_replay dataset.txt.gz

A row of the file: the arm shown (from 1), its reward (0 or 1), then the features of each arm, arm after arm. Reference:
over the first 800 matches of the 10-arm set, alpha = 1 earns 0.53 a match and alpha = 0.02 earns 0.73125.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.exploration.choice import choose
from banditmesh.bandits.exploration.ucb import Ucb
from banditmesh.bandits.hashing import numeric_id
from banditmesh.bandits.linucb import Linucb, LinucbParams

Row = tuple[int, NDArray[np.float64], float]
"""The arm shown, float64[n_arms, d] features, the reward."""


def read(path: Path, n_arms: int = 10) -> Iterator[Row]:
    """The rows of a file as described above."""
    table = np.loadtxt(path)
    for row in table:
        yield int(row[0]) - 1, row[2:].reshape(n_arms, -1), float(row[1])


def replay(log: Iterable[Row], fields: Sequence[str], alpha: float) -> list[tuple[int, float]]:
    """(row, reward) of each match: the policy picks, and learns from a row only if that row showed its pick.

    Args:
        log: rows, logged by a policy that drew uniformly.
        fields: names for the d features.
        alpha: of the upper confidence bound.
    """
    policy, exploration = Linucb(LinucbParams(dense=tuple(fields))), Ucb(alpha=alpha, floor=0.0)
    ids = np.array([numeric_id(field) for field in fields], np.uint32)
    rng = np.random.default_rng(0)
    matches = []
    for number, (shown, x, reward) in enumerate(log):
        n, d = x.shape
        keys, offsets = np.arange(n, dtype=np.uint64), np.array([0, n])
        features = SparseRows(np.arange(n + 1) * d, np.tile(ids, n), x.astype(np.float32).ravel())
        candidates = Candidates(offsets, keys, keys, keys, SparseRows.empty(1), features)
        picked = choose(exploration.probabilities(policy.score(candidates), offsets), offsets, rng)[0]
        if picked[0] == shown:
            matches.append((number, reward))
            key = keys[picked]
            rewards, one = np.array([reward], np.float32), np.ones(1, np.float32)
            policy.learn(Examples(key, key, key, features.take(picked), rewards, one, np.zeros(1), rewards > 0))
    return matches


def main() -> None:
    """Prints the reward a match over the first matches, for each alpha."""
    parser = argparse.ArgumentParser(description="LinUCB on a uniformly logged stream, by rejection.")
    parser.add_argument("log", type=Path, help="the file, plain or gzipped")
    parser.add_argument("--matches", type=int, default=800, help="how many matches count")
    parser.add_argument("--alpha", type=float, nargs="+", default=[1.0, 0.02])
    options = parser.parse_args()
    log = list(read(options.log))
    fields = [f"x{number}" for number in range(log[0][1].shape[1])]
    for alpha in options.alpha:
        rewards = [reward for _, reward in replay(log, fields, alpha)[: options.matches]]
        print(f"alpha {alpha:g}: {np.mean(rewards):.5f} a match over {len(rewards)} matches")


if __name__ == "__main__":
    main()
