"""Ranked lists: what a policy would have earned with whole lists, from lists that another one made.

A list of K contents has so many possible values that importance weights of whole lists soon say nothing. What one
assumes of how positions influence each other decides how much of the weight is needed (McInerney, Brost, Chandar,
Mehrotra, Carterette 2020, "Counterfactual evaluation of slate recommendations with sequential reward interactions"):

- ``standard``: the reward at a position depends on the whole list. Weight: the product over all positions
  (equation 1 there; unbiased whatever users do).
- ``cascade``: users go through the list from the top, so it depends on that position and those before it. Weight: the
  product up to the position (reward interaction IPS, equation 7).
- ``independence``: it depends on what is at that position alone. Weight: that position's own (Li, Abbasi-Yadkori,
  Kveton, Muthukrishnan, Vinay, Wen 2018, "Offline evaluation of ranking policies with click models", section 4.2).

The fewer weights, the narrower the interval, and the stronger the assumption: where the three disagree by more than
their intervals, the stronger one does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import InvalidBatch, InvalidParams
from banditmesh.ope.interval import UNKNOWN, Interval, lower, upper
from banditmesh.ope.moments import Moments
from banditmesh.ope.rows import LARGEST_WEIGHT, Floats
from banditmesh.ope.support import ROUNDED, SHIFTED_AT

Assumption = Literal["independence", "cascade", "standard"]
ASSUMPTIONS: Final[tuple[Assumption, ...]] = ("independence", "cascade", "standard")
_PLAIN: Final = np.array([1.0, 0.0])


@dataclass(frozen=True, slots=True, eq=False)
class ListRows:
    """n contents at their positions in lists; a list's contents stand together, from the top.

    Attributes:
        lists: int64[n], which list.
        rewards: float64[n], what each content earned.
        propensities: float64[n] in (0, 1], the probability of the content at its position given those before it.
        targets: float64[n] in [0, 1], the same by the evaluated policy.
        own_propensities, own_targets: float64[n], the probability of the content at its position whatever stands before
            it, for ``independence``; None: those given what stands before it are taken for them.
    """

    lists: NDArray[np.int64]
    rewards: Floats
    propensities: Floats
    targets: Floats
    own_propensities: Floats | None = None
    own_targets: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.lists)
        for name in ("rewards", "propensities", "targets"):
            if getattr(self, name).shape != (n,):
                raise InvalidBatch(f"must have {n} elements", field=name, value=getattr(self, name).shape)
        if n and not (self.propensities.min() > 0 and self.propensities.max() <= 1):
            raise InvalidBatch("must be in (0, 1]", field="propensities", value=float(self.propensities.min()))
        again = np.flatnonzero(np.diff(self.lists))
        if len(np.unique(self.lists)) != len(again) + (n > 0):
            raise InvalidBatch("the contents of a list must stand together", field="lists", value=None)

    @property
    def starts(self) -> NDArray[np.int64]:
        """int64[n_lists]: the first row of each list."""
        return np.concatenate([[0], np.flatnonzero(np.diff(self.lists)) + 1]) if len(self.lists) else np.zeros(0, int)

    def weights(self, assumption: Assumption) -> Floats:
        """float64[n]: the weight of each content's reward, at most `LARGEST_WEIGHT`."""
        if assumption == "independence":
            targets = self.targets if self.own_targets is None else self.own_targets
            propensities = self.propensities if self.own_propensities is None else self.own_propensities
            return np.minimum(targets / propensities, LARGEST_WEIGHT)
        starts = self.starts
        sizes = np.diff(np.append(starts, len(self.lists)))
        products = _running_products(self.targets / self.propensities, starts, sizes)
        if assumption == "standard":
            products = np.repeat(products[starts + sizes - 1], sizes)
        return np.minimum(products, LARGEST_WEIGHT)


class SlateIps:
    """V = 1/n sum over lists of sum_k w_k r_k, w by the assumption. Sums alone; two of them add up.

    Attributes:
        assumption: see the module.
        lists: how many were added.
    """

    def __init__(self, assumption: Assumption) -> None:
        if assumption not in ASSUMPTIONS:
            raise InvalidParams(f"must be one of {', '.join(ASSUMPTIONS)}", field="assumption", value=assumption)
        self.assumption = assumption
        self._moments = Moments()
        self._weights = Moments()
        self._gaps = Moments()  # of a list's weights beyond 1
        self._heaviest = 0.0
        self._rewards = (0.0, 0.0)

    @property
    def lists(self) -> int:
        """How many lists."""
        return self._moments.n

    def add(self, rows: ListRows) -> None:
        """Takes in whole lists, in batches of any size."""
        if not len(rows.lists):
            return
        weights, starts = rows.weights(self.assumption), rows.starts
        terms = np.add.reduceat(weights * rows.rewards, starts)
        self._moments.add(np.column_stack((terms, np.ones(len(terms)))))
        self._weights.add(np.column_stack((weights, weights)))
        gaps = np.add.reduceat(weights - 1.0, starts)
        self._gaps.add(np.column_stack((gaps, gaps)))
        heaviest = np.add.reduceat(weights, starts).max()
        self._heaviest = max(self._heaviest, float(heaviest))
        least, most = self._rewards
        self._rewards = (min(least, float(rows.rewards.min())), max(most, float(rows.rewards.max())))

    def merge(self, other: SlateIps) -> None:
        """Adds the lists that `other` has seen."""
        self._moments.merge(other._moments)
        self._weights.merge(other._weights)
        self._gaps.merge(other._gaps)
        self._heaviest = max(self._heaviest, other._heaviest)
        least, most = self._rewards
        self._rewards = (min(least, other._rewards[0]), max(most, other._rewards[1]))

    @property
    def value(self) -> float:
        """The estimated reward of a list; NaN before the first."""
        return float(self._moments.mean[0]) if self.lists else float("nan")

    @property
    def mean_weight(self) -> float:
        """1 where the log supports the policy."""
        return float(self._weights.mean[0]) if self.lists else float("nan")

    @property
    def shifted(self) -> bool:
        """Whether the mean weight is certainly below 1: then the sums lack what the log never showed."""
        if self.lists < 2:
            return False
        reach = upper(self._gaps, _PLAIN, (self._heaviest, 0.0), SHIFTED_AT)
        return float(self._gaps.mean[0]) + reach < -ROUNDED

    @property
    def effective(self) -> float:
        """Kish's effective number of contents."""
        n, mean = self._weights.n, float(self._weights.mean[0])
        squares = float(self._weights.scatter[0, 0]) + n * mean**2
        return (n * mean) ** 2 / squares if squares > 0 else 0.0

    def interval(self, confidence: float = 0.95) -> Interval:
        """Where the expected reward of a list lies: see `banditmesh.ope.interval`; lists are the unit."""
        if self.lists < 2:
            return UNKNOWN
        least, most = (self._heaviest * each for each in self._rewards)
        return Interval(
            self.value + lower(self._moments, _PLAIN, (least, 1.0), confidence),
            self.value + upper(self._moments, _PLAIN, (most, 1.0), confidence),
        )


def _running_products(ratios: Floats, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Floats:
    """float64[n]: the product of a list's ratios up to each row, by position and for all lists at once."""
    products: NDArray[Any] = ratios.copy()
    for position in range(1, int(sizes.max(initial=0))):
        rows = starts[sizes > position] + position
        products[rows] *= products[rows - 1]
    return products
