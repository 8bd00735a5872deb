"""Drawing from probabilities, with the propensity of what was drawn; one content, or a ranked list of several."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.base import Exploration


class Choice(NamedTuple):
    """What was drawn.

    Attributes:
        chosen: int64[n_decisions] (`choose`) or int64[n_decisions, k] (`rank`), flat candidate index, -1 for none.
        propensity: float64 of the same shape, its probability when it was drawn; 0 for none.
    """

    chosen: NDArray[np.int64]
    propensity: NDArray[np.float64]


def choose(probabilities: NDArray[np.float64], offsets: NDArray[np.int64], rng: np.random.Generator) -> Choice:
    """Draws one candidate per decision by inversion of the cumulated probabilities.

    Takes one random number per decision, in their order, also for an empty one. A candidate of probability 0 is never
    drawn, whatever the rounding.

    Args:
        probabilities: float64[n_candidates], summing to 1 over each decision that has candidates.
        offsets: int64[n_decisions + 1].
    """
    drawn = rng.random(len(offsets) - 1)
    if len(drawn) == 1 and len(probabilities):
        # What comes below, with a third of the calls: a decision alone is worth it.
        cumulated = probabilities.cumsum()
        above = cumulated[-1:]
        index = cumulated.searchsorted(np.minimum(drawn * above, np.nextafter(above, -np.inf)), side="right")
        return Choice(index, probabilities.take(index))
    cumulated = np.zeros(len(probabilities) + 1)
    probabilities.cumsum(out=cumulated[1:])
    ends = cumulated.take(offsets)
    below, above = ends[:-1], ends[1:]
    # Strictly under the end of the segment, so that the search stops at its last candidate that can be drawn.
    target = np.minimum(below + drawn * (above - below), np.nextafter(above, -np.inf))
    index = cumulated[1:].searchsorted(target, side="right")
    empty = offsets[:-1] == offsets[1:]
    if not np.count_nonzero(empty):
        return Choice(index, probabilities.take(index))
    index[empty] = -1
    propensity = np.zeros(len(index))
    propensity[~empty] = probabilities[index[~empty]]
    return Choice(index, propensity)


def rank(
    exploration: Exploration, scores: Scores, offsets: NDArray[np.int64], k: int, rng: np.random.Generator
) -> Choice:
    """Draws up to k different candidates per decision, one position after the other without replacement.

    At each position the exploration sees the candidates that are left, and the propensity is conditional on the
    positions before it; their product is that of the whole list. Loops over positions, never over decisions.
    """
    n = len(scores.mean)
    ranking = np.full((len(offsets) - 1, k), -1, np.int64)
    propensity = np.zeros(ranking.shape)
    left = np.ones(n, np.bool_)
    for position in range(k):
        candidates = np.flatnonzero(left)
        if not len(candidates):
            break
        remaining = segments.kept_offsets(offsets, left)
        still = Scores(scores.mean[candidates], scores.deviation[candidates])
        choice = choose(exploration.probabilities(still, remaining), remaining, rng)
        some = choice.chosen >= 0
        ranking[some, position] = candidates[choice.chosen[some]]
        propensity[:, position] = choice.propensity
        left[ranking[some, position]] = False
    return Choice(ranking, propensity)
