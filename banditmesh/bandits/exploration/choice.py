"""Drawing from probabilities, with the propensity of what was drawn; one content, or a ranked list of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.constraint import Constraint, blocking, shifted


class Explores(Protocol):
    """What `rank` needs of an exploration."""

    def probabilities(self, scores: Scores, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `Exploration.probabilities`."""
        ...


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


def among(
    explores: Explores, scores: Scores, offsets: NDArray[np.int64], free: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """float64[n_candidates]: the probabilities when only the free candidates (bool[n_candidates]) can be drawn, 0 of
    the others."""
    if free.all():
        return explores.probabilities(scores, offsets)
    shares = np.zeros(len(free))
    still = Scores(scores.mean[free], scores.deviation[free])
    shares[free] = explores.probabilities(still, segments.kept_offsets(offsets, free))
    return shares


def rank(
    exploration: Explores,
    scores: Scores,
    offsets: NDArray[np.int64],
    k: int,
    rng: np.random.Generator,
    constraints: Sequence[Constraint] = (),
    wanted: NDArray[np.int64] | None = None,
) -> Choice:
    """Draws up to k different candidates per decision, one position after the other without replacement.

    At each position the exploration sees the candidates that are left and that no constraint blocks, by the scores as
    constraints have moved them, so the propensity is conditional on the positions before it; their product is that of
    the whole list. A list ends at the first position that nobody can have: it has no holes. Loops over positions, never
    over decisions.

    Args:
        exploration: gives the candidates of each position their probabilities.
        scores: float32[n_candidates] each.
        offsets: int64[n_decisions + 1].
        k: positions of the longest list.
        rng: gives one number per decision and position, in their order.
        constraints: what may not be drawn, and what moves scores, for these candidates; those that yield come last.
        wanted: int64[n_decisions], positions of each list, at most k; None: k of each.
    """
    shape = (len(offsets) - 1, k)
    chosen, propensity = np.full(shape, -1, np.int64), np.zeros(shape)
    left = np.ones(len(scores.mean), np.bool_)
    if wanted is not None:
        left &= np.repeat(wanted > 0, segments.lengths(offsets))
    for position in range(k):
        if not left.any():  # no constraint is asked about nobody
            break
        free, seen = left, scores
        if constraints:
            before = chosen[:, :position]
            for _, blocked in blocking(constraints, before, left, offsets):
                free = free & ~blocked
            seen = shifted(scores, constraints, before)
        at = np.flatnonzero(free)
        if not len(at):
            break
        choice = _draw(exploration, seen, offsets, free, at, rng)
        chosen[:, position], propensity[:, position] = choice
        if position + 1 < k:
            some = choice.chosen >= 0
            left[choice.chosen[some]] = False
            ended = ~some if wanted is None else ~some | (wanted <= position + 1)
            if ended.any():
                left &= np.repeat(~ended, segments.lengths(offsets))
    return Choice(chosen, propensity)


def _draw(
    exploration: Explores,
    scores: Scores,
    offsets: NDArray[np.int64],
    free: NDArray[np.bool_],
    at: NDArray[np.int64],
    rng: np.random.Generator,
) -> Choice:
    """Draws one of the free candidates per decision. `at`: int64[n_free], their flat index."""
    if len(at) == len(free):
        return choose(exploration.probabilities(scores, offsets), offsets, rng)
    remaining = segments.kept_offsets(offsets, free)
    still = Scores(scores.mean[at], scores.deviation[at])
    choice = choose(exploration.probabilities(still, remaining), remaining, rng)
    return Choice(np.where(choice.chosen >= 0, at[choice.chosen], -1), choice.propensity)
