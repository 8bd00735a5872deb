"""Stage 6: from scores to a choice, with the probability that it had."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.choice import Choice, choose, rank
from services.crs_engine.pipeline.batch import Group


def probabilities(group: Group, scores: Scores, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """``float64[n_candidates]``: with which each candidate gets the (first) position, by the exploration of each
    user's variant."""
    shares = np.empty(len(scores.mean))
    for variant, users in group.by_variant():
        start, end = offsets[users.start], offsets[users.stop]
        exploration = group.placement.variants[variant].exploration
        own = offsets[users.start : users.stop + 1] - start
        shares[start:end] = exploration.probabilities(Scores(scores.mean[start:end], scores.deviation[start:end]), own)
    return shares


def explore(group: Group, scores: Scores, offsets: NDArray[np.int64], rng: np.random.Generator) -> Choice:
    """Who gets which position: ``[n_users, group.count]`` each, -1 and 0 where there is no candidate (any more)."""
    if group.count == 1:
        index, propensity = choose(probabilities(group, scores, offsets), offsets, rng)
        return Choice(index[:, None], propensity[:, None])
    index = np.empty((len(group), group.count), np.int64)
    propensity = np.empty((len(group), group.count))
    for variant, users in group.by_variant():
        start, end = offsets[users.start], offsets[users.stop]
        own = offsets[users.start : users.stop + 1] - start
        ranked = rank(
            group.placement.variants[variant].exploration,
            Scores(scores.mean[start:end], scores.deviation[start:end]),
            own,
            group.count,
            rng,
        )
        index[users] = np.where(ranked.chosen >= 0, ranked.chosen + start, -1)
        propensity[users] = ranked.propensity
    return Choice(index, propensity)
