"""What one policy earns more than another, from the same decisions: the difference is taken row by row.

Two estimates from one log share its chance: the same heavy weights, the same clicks. Where the two policies do the same
their difference is 0, whatever the row earned, and whatever the log supports; so its interval is narrower than the two
intervals let one think, and narrow enough to see what a rule costs that matters now and then.

Where they do not, what one shows more and what the other does are judged apart. With pi and pi0 the two policies, p the
logging one, and d half of the sum over candidates of abs(pi - pi0), the share of a row that moves, each row has

    gain w+ = max(pi - pi0, 0) / p,    loss w- = max(pi0 - pi, 0) / p,    both with the mean E[d] under full support,

and d is known for each row. So what the log cannot tell is known as well: what of d is missing in w+ or in w-.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import NotMergeable
from banditmesh.ope.evaluation import Estimate
from banditmesh.ope.interval import UNKNOWN, Interval, lower, upper
from banditmesh.ope.moments import Floats, Moments
from banditmesh.ope.rows import LARGEST_WEIGHT, Rows
from banditmesh.ope.support import ROUNDED, Support
from banditmesh.ope.worst import Worst

BOUNDS: Final = "bounds"
"""How an estimate is called that knows only what the log lacks."""
_SUSPECTED_AT: Final = 0.95
"""Confidence at which something counts as missing. Lower than for a single policy (`support.SHIFTED_AT`): few rows
move, and a false alarm widens the interval and does not spoil it, as all of what is known of d holds in any case."""
_PLAIN: Final = np.array([1.0, 0.0])
_GAIN: Final = np.array([0.0, 1.0, 0.0, 0.0, -1.0])
_LOSS: Final = np.array([0.0, 0.0, 0.0, 1.0, -1.0])


class Pair(NamedTuple):
    """The same n decisions under two policies: keys, rewards, propensities and predictions are alike.

    Attributes:
        policy: under the one that is judged.
        base: under the one that it is compared with.
        moved: float64[n] in [0, 1], d: half of the sum over candidates of the difference of their probabilities.
    """

    policy: Rows
    base: Rows
    moved: Floats

    def part(self, at: NDArray[np.bool_]) -> Self:
        """Some of the rows."""
        return type(self)(self.policy.part(at), self.base.part(at), self.moved[at])


class Difference:
    """V(policy) - V(base) by the doubly robust estimator of each row's difference (IPS where the model predicts 0):

        D = 1/n sum_i [sum_a (pi(a) - pi0(a)) q(a) + (w+ - w-) (r - q(shown))]

    The interval is that of `banditmesh.ope.interval`, rows as the unit. Where the weights show that the log lacks some
    of what moves (`shifted`), no model knows what that earns: the interval holds whatever it does, as `Support.bounds`
    does for a single policy:

        E[w+ (r - l) + w- (u - r) - d (u - l)] <= D <= E[d (u - l) - w+ (u - r) - w- (r - l)]

    Sums alone; two of them add up.

    Args:
        confidence: of the interval.
        rewards: the least and the largest reward there can be; None: as the log shows.
    """

    def __init__(self, *, confidence: float = 0.95, rewards: Interval | None = None) -> None:
        self._settings = (confidence, rewards)
        self._terms = Moments()
        self._seen = Moments.wide(5)  # of (w+ r, w+, w- r, w-, d)
        self._rising, self._falling = Worst(), Worst()
        self._most_moved, self._rarest = 0.0, 1.0  # d and p
        self._support = Support()

    def add(self, pair: Pair) -> None:
        """Takes in rows, in batches of any size."""
        rows, base = pair.policy, pair.base
        n = len(rows)
        if not n:
            return
        slopes = rows.weights - base.weights
        intercepts = rows.expected - base.expected - slopes * rows.predicted
        gain, loss = np.maximum(slopes, 0.0), np.maximum(-slopes, 0.0)
        self._terms.add(np.column_stack((intercepts + slopes * rows.rewards, np.ones(n))))
        self._seen.add(np.column_stack((gain * rows.rewards, gain, loss * rows.rewards, loss, pair.moved)))
        up = slopes >= 0
        self._rising.add(intercepts[up], gain[up], np.ones(int(up.sum())))
        self._falling.add(-intercepts[~up], loss[~up], np.ones(int((~up).sum())))
        self._note(float(pair.moved.max()), float(rows.propensities.min()))
        self._support.add(rows)

    def merge(self, other: Difference) -> None:
        """Adds the rows that `other` has seen. Raises `NotMergeable` when it is set otherwise."""
        if self._settings != other._settings:
            raise NotMergeable("differs in confidence or rewards", field="difference", value=None)
        self._terms.merge(other._terms)
        self._seen.merge(other._seen)
        self._rising.merge(other._rising)
        self._falling.merge(other._falling)
        self._note(other._most_moved, other._rarest)
        self._support.merge(other._support)

    def _note(self, moved: float, propensity: float) -> None:
        self._most_moved, self._rarest = max(self._most_moved, moved), min(self._rarest, propensity)

    @property
    def n(self) -> int:
        """How many rows."""
        return self._terms.n

    @property
    def moved(self) -> float:
        """The share of the decisions that one policy would make otherwise than the other; NaN before the first row."""
        return float(self._seen.mean[4]) if self.n else math.nan

    @property
    def told(self) -> float:
        """Which share of what moves the log tells of: 1 when all is well; NaN where nothing moves. Weights that are too
        large by chance tell of nothing more; where some of what moves is missing for certain, they make up for none."""
        gain, loss, moved = (float(self._seen.mean[at]) for at in (1, 3, 4))
        if not moved > 0:
            return math.nan
        if self.shifted:
            return (min(gain, moved) + min(loss, moved)) / (2 * moved)
        return min((gain + loss) / (2 * moved), 1.0)

    @property
    def shifted(self) -> bool:
        """Whether what one of the two shows more is certainly not in the log by its share."""
        if self.n < 2:
            return False
        rounded, moved = ROUNDED * self.moved, self._most_moved
        heaviest = min(moved / self._rarest, LARGEST_WEIGHT)  # what moves may be what the log shows most rarely
        for gradient in (_GAIN, _LOSS):
            best = (0.0, heaviest, 0.0, heaviest, 0.0)
            mean = float(gradient @ self._seen.mean)
            if mean + upper(self._seen, gradient, best, _SUSPECTED_AT) < -rounded:
                return True
            if mean + lower(self._seen, gradient, (0.0, 0.0, 0.0, 0.0, moved), _SUSPECTED_AT) > rounded:
                return True
        return False

    @property
    def estimate(self) -> Estimate:
        """The difference: `dr`, or `bounds` where the log lacks some of what moves; NaN before the first row."""
        confidence, given = self._settings
        rewards = self._support.rewards if given is None else given
        limits = self._support.limits if given is None else given
        most = Interval(limits.lower - limits.upper, limits.upper - limits.lower)
        if not self.n:
            return Estimate("dr", math.nan, most, UNKNOWN)
        if self.shifted:
            interval = self._bounds(rewards, confidence)
            middle = sum(rewards) / 2
            value = float(np.array([1.0, -middle, -1.0, middle, 0.0]) @ self._seen.mean)
            return Estimate(BOUNDS, Interval(value, value).within(interval).lower, interval, UNKNOWN)
        value = float(self._terms.mean[0])
        if self.n < 2:
            return Estimate("dr", value, most, UNKNOWN)
        error, _ = self._terms.along(_PLAIN)
        half = NormalDist().inv_cdf(0.5 + confidence / 2) * error
        interval = Interval(
            value + lower(self._terms, _PLAIN, (self._least(rewards), 1.0), confidence),
            value + upper(self._terms, _PLAIN, (self._most(rewards), 1.0), confidence),
        )
        return Estimate("dr", value, interval.within(most), Interval(value - half, value + half))

    def _least(self, rewards: Interval) -> float:
        """The worst that a row could have said of the policy: 0 if its decisions were always those of the other."""
        return min(self._rising.low(_PLAIN, rewards.lower)[0], -self._falling.high(_PLAIN, rewards.upper)[0])

    def _most(self, rewards: Interval) -> float:
        return max(self._rising.high(_PLAIN, rewards.upper)[0], -self._falling.low(_PLAIN, rewards.lower)[0])

    def _bounds(self, rewards: Interval, confidence: float) -> Interval:
        least, most = rewards
        width = most - least
        nothing = (0.0, 0.0, 0.0, 0.0, self._most_moved)
        found = []
        for gradient in ((1.0, -least, -1.0, most, -width), (-1.0, most, 1.0, -least, -width)):
            along = np.array(gradient)
            found.append(float(along @ self._seen.mean) + lower(self._seen, along, nothing, confidence))
        below, above = max(found[0], -width), min(-found[1], width)
        return Interval(below, above) if below <= above else Interval(-width, width)
