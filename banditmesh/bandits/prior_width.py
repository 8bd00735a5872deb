"""How wide the prior of the weights is, read off the weights (empirical Bayes).

Weights of one kind share a prior N(0, s^2 / p), with p in examples and s the noise of one reward. Its width is where
the weights are as large as it says: with m_i the mean and q_i >= p the precision of weight i in examples, 1 - p / q_i
is the part of it that its examples have settled, and

    s^2 / p = sum_i m_i^2 / sum_i (1 - p / q_i)                            (MacKay 1992, "Bayesian Interpolation", 4)

with one settled weight of the first width added to both sums. A prior that is too wide believes the luck of a
content's first clicks, and explores what is not worth it: the rarer clicks are, the smaller are all effects beside the
noise, and the larger is p. Hashed features do not say which field they are of, so there are three kinds: features as
they were given, crosses, and arms.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.hashing import CROSSED

GIVEN, CROSS, ARM = range(3)
KINDS: Final = 3

_FIRST_EXAMPLES = 16
_NARROWEST = 1e5
_MOST_CHANGE = 2.0


class Widths:
    """The precisions of the priors of weights, by their kind.

    Attributes:
        now: float64[KINDS], in examples.
    """

    def __init__(self, first: float) -> None:
        """`first`: of each kind, before anything is known."""
        self._first = first
        self.now = np.full(KINDS, first)

    def of(self, kind: NDArray[np.number[Any]]) -> NDArray[np.float64]:
        """float64[n]: of weights of these kinds."""
        return self.now[kind.astype(np.int64)]

    def read(
        self, kind: NDArray[np.float32], weight: NDArray[np.float32], precision: NDArray[np.float32], noise: float
    ) -> None:
        """Reads each width off the weights, float32[n], and shrinks them, in place, as far as that would have."""
        for each, prior in enumerate(self.now.tolist()):
            mine = np.flatnonzero(kind == each)
            now = width(weight[mine], precision[mine], prior, self._first, noise)
            after = np.maximum(precision[mine] + np.float32(now - prior), np.float32(now))
            weight[mine] *= precision[mine] / after
            precision[mine], self.now[each] = after, now

    def restore(self, precisions: NDArray[np.float64]) -> None:
        """Takes over what `now` was, float64[KINDS]. Raises `InvalidTensors`."""
        if not (np.isfinite(precisions).all() and (precisions > 0).all()):
            raise InvalidTensors("must be above 0 and finite", field="prior")
        self.now = precisions.copy()


def kinds(rows: SparseRows, arms: NDArray[np.uint32] | None) -> NDArray[np.int64]:
    """int64[n_entries]: what these folded features are. arms: uint32[n_rows], the folded id of each row's arm; None:
    no row has one."""
    found = np.where(rows.ids >= CROSSED, CROSS, GIVEN)
    if arms is None:
        return found
    return np.where(rows.ids == np.repeat(arms, segments.lengths(rows.offsets)), ARM, found)


def due(before: int, now: int) -> bool:
    """Whether widths are read anew when the number of examples goes from one to the other: at each eighth or so more of
    them, so that a sweep over all weights costs next to nothing an example."""
    return now >= _FIRST_EXAMPLES and _leading(before) != _leading(now)


def _leading(examples: int) -> tuple[int, int]:
    shift = max(examples.bit_length() - 4, 0)
    return shift, examples >> shift


def width(mean: NDArray[np.float32], precision: NDArray[np.float32], prior: float, first: float, noise: float) -> float:
    """The prior's precision p after another look at the weights of one kind, in examples: never more than doubled or
    halved at once, for m and q follow from p.

    Args:
        mean, precision: float32[n], m and q.
        prior: p so far.
        first: p before anything was known.
        noise: s^2.
    """
    settled = _sum(1.0 - prior / np.maximum(precision.astype(np.float64), prior))
    power = _sum(np.square(mean, dtype=np.float64)) / max(noise, 1e-300)
    found = (settled + 1.0) / (power + 1.0 / first)
    least = max(prior / _MOST_CHANGE, min(first, 1.0))
    return float(np.clip(found, least, max(min(prior * _MOST_CHANGE, _NARROWEST * max(first, 1.0)), least)))


def _sum(values: NDArray[np.float64]) -> float:
    """In order of size: a model that was loaded has its features in another order, and learns on to the same bit."""
    return float(np.sort(values).sum())
