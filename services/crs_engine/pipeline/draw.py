"""Stage 6: from scores to a choice under the placement's rules, with the probability that it had."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.base import Exploration
from banditmesh.bandits.exploration.choice import Choice, Explores, rank
from banditmesh.bandits.exploration.constraint import Constraint
from services.crs_engine.pipeline.batch import Group, Pool, Slate


@dataclass(frozen=True, eq=False)
class EachByItsVariant:
    """Explores each user's candidates by the exploration of the user's variant."""

    group: Group

    def probabilities(self, scores: Scores, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """``float64[n_candidates]``: the probability with which each candidate gets the next position."""
        variants = self.group.by_variant
        if len(variants) == 1:
            return self._exploration(variants[0][0]).probabilities(scores, offsets)
        shares = np.empty(len(scores.mean))
        for variant, users in variants:
            start, end = offsets[users.start], offsets[users.stop]
            own = Scores(scores.mean[start:end], scores.deviation[start:end])
            shares[start:end] = self._exploration(variant).probabilities(
                own, offsets[users.start : users.stop + 1] - start
            )
        return shares

    def _exploration(self, variant: int) -> Exploration:
        return self.group.placement.variants[variant].exploration


def draw(
    explores: Explores,
    scores: Scores,
    pool: Pool,
    slate: Slate,
    constraints: Collection[Constraint],
    rng: np.random.Generator,
) -> Choice:
    """Which candidate gets which of the open positions: ``[n_users, n]`` each, -1 and 0 where none is left.

    The first column is each user's first open position.
    """
    longest = int(slate.open.max())
    wanted = slate.open if slate.rounds else None
    return rank(explores, scores, pool.offsets, longest, rng, tuple(constraints), wanted)
