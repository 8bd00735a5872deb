"""Thompson sampling with its exact propensities: P(argmax = a) for independent Gaussian beliefs, without sampling.

With F_b(t) = Phi((t - mean_b) / deviation_b) and G = prod F_b, the distribution of the best draw,

    P(argmax = a) = int G(t) d(log F_a(t)).

A Gauss–Hermite rule per candidate is usual, for the equal form int phi(z) prod F_b(mean_a + deviation_a z) dz. But a
well-known rival makes a step of that product, which 32 nodes miss by up to 0.08, and it costs n² evaluations.
The form above needs log F of each candidate at nodes that the decision shares (n evaluations a node), and it is enough
that G changes little between two nodes: over such a cell each candidate gets the part of the rise of G that its rise of
log F has in that of log G. These parts sum to 1 by themselves. Two passes: nodes graded around the lowest t that
matters, to find where G rises, however narrow; then nodes where G = (k / K)², since it is the relative change of G that
must be small.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.exploration.base import TIE, Beliefs, Exploration

_LOW, _HIGH = 5.0, 6.5
_SEARCH_NODES, _NODES = 40, 48
_AT_ONCE = 1 << 20
_PER_CANDIDATE, _MOST = 0.01, 0.25

_STEPS_PER_UNIT = 256
_TABLE = np.array(
    [math.log(0.5 * math.erfc(-(i / _STEPS_PER_UNIT - 8.0) / math.sqrt(2.0))) for i in range(16 * _STEPS_PER_UNIT + 2)]
)
_SLOPES = np.diff(_TABLE)


class Thompson(Exploration):
    """Each candidate with the probability that it is the best under the policy's beliefs, with deviations scaled.

    The scale is what Chapelle and Li (2011, Section 3) call posterior reshaping: over the few thousand decisions in
    which most is won or lost, sampling from the posterior itself explores too much. Within 0.001 of the true
    probability. A deviation of 0 is a certainty; all of them 0 is `greedy`, ties sharing.
    """

    name: ClassVar[str] = "thompson"

    scale: float | None = Field(
        default=0.25,
        ge=0,
        description="What deviations are multiplied by: 1 is sampling from the posterior, below 1 explores less. null: "
        "0.01 for each candidate of the decision, at most 0.25.",
    )

    def _shares(self, beliefs: Beliefs, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        scale: float | NDArray[np.float64]
        if self.scale is None:
            counts = segments.lengths(offsets)
            scale = np.repeat(np.minimum(_PER_CANDIDATE * counts, _MOST), counts)
        else:
            scale = self.scale
        return probability_of_best(beliefs.mean, scale * beliefs.deviation, offsets)


def probability_of_best(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """float64[n]: P(argmax = a) within each segment, for independent N(mean, deviation²), both finite."""
    out = np.empty(len(mean))
    start = 0
    while start < len(offsets) - 1:
        # As many decisions at once as the node matrices may hold, one at least.
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _AT_ONCE // _NODES, "right")) - 1)
        flat = slice(offsets[start], offsets[stop])
        out[flat] = _of_part(mean[flat], deviation[flat], offsets[start : stop + 1] - offsets[start])
        start = stop
    return out


def _of_part(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    counts = segments.lengths(offsets)
    if not len(mean):
        return np.empty(0)
    filled = np.flatnonzero(counts)
    counts, offsets = counts[filled], np.concatenate([[0], offsets[1:][filled]])
    magnitude = segments.maxima(np.maximum(np.abs(mean), deviation), offsets)
    # A certainty becomes a belief so narrow that it differs from a tie in nothing (and never 0, which divides).
    narrow = np.maximum(TIE * magnitude, 1e-300)
    deviation = np.maximum(deviation, np.repeat(narrow, counts))

    low = segments.argmax(mean - _LOW * deviation, offsets)
    bottom = mean[low] - _LOW * deviation[low]
    span = segments.maxima(mean + _HIGH * deviation, offsets) - bottom
    # Finest at the bottom, on the scale of the candidate that sets it: every narrower one has lost there already.
    growth = np.log1p(span / deviation[low])
    steps = np.linspace(0.0, 1.0, _SEARCH_NODES)[:, None]
    nodes = bottom + deviation[low] * np.expm1(growth * steps)

    best = np.exp(segments.sums(_log_cdf(nodes, mean, deviation, counts), offsets))
    nodes = _nodes_by_rise(nodes, best)
    log_cdf = _log_cdf(nodes, mean, deviation, counts)
    log_best = segments.sums(log_cdf, offsets)
    best = np.exp(log_best)
    rise = np.diff(log_best, axis=0)
    # (G' - G) / (log G' - log G); where nothing rises, G itself.
    weight = np.where(rise > 1e-12, np.diff(best, axis=0) / np.maximum(rise, 1e-300), best[:-1])
    shares = np.einsum("ki,ki->i", np.diff(log_cdf, axis=0), np.repeat(weight, counts, axis=1))
    return np.asarray(shares / np.repeat(segments.sums(shares, offsets), counts))


def _nodes_by_rise(nodes: NDArray[np.float64], best: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[_NODES, n_decisions]: where G passes (k / K)², from its values [n_search, n_decisions] at `nodes`."""
    shift = 2.0 * np.arange(nodes.shape[1])[:, None]  # one rising line for np.interp, decision after decision
    goals = np.linspace(0.0, 1.0, _NODES)[1:-1] ** 2
    inner = np.interp((shift + goals).ravel(), (best.T + shift).ravel(), nodes.T.ravel())
    return np.vstack([nodes[:1], inner.reshape(-1, len(goals)).T, nodes[-1:]])


def _log_cdf(
    nodes: NDArray[np.float64], mean: NDArray[np.float64], deviation: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """float64[n_nodes, n]: log Phi((node - mean) / deviation), nodes float64[n_nodes, n_decisions].

    By linear interpolation in a table over [-8, 8], which numpy lacks the function for: exact to 2e-6 absolute.
    """
    at = np.repeat(nodes, counts, axis=1)
    at -= mean
    at *= _STEPS_PER_UNIT / deviation
    at += 8.0 * _STEPS_PER_UNIT
    np.clip(at, 0.0, 16.0 * _STEPS_PER_UNIT, out=at)
    whole = at.astype(np.intp)
    at -= whole
    at *= _SLOPES[whole]
    at += _TABLE[whole]
    return at
