"""Do variants get the users that their weights promise? A test that may be looked at at any time.

Who is missing from a variant is rarely missing at random (a variant that crashes, or that shows nothing to some), so no
other number of an experiment is to be believed before this one is. The test is the Bayes factor of "any shares" against
"these shares" (Lindon and Malek 2022, "Anytime-valid inference for multinomial count data", theorem 2.1): under the
promised shares it exceeds 1 / alpha ever, at any time, with probability alpha at most (Ville 1939).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma, log
from typing import Final

ALPHA: Final = 0.001
"""Below it there is an alarm: a mismatch makes everything else worthless, and a false alarm costs a look."""
_CONCENTRATION: Final = 100.0
"""Of the Dirichlet prior around the promised shares: shares off by a tenth are what it is keenest on."""


@dataclass(frozen=True)
class SampleRatio:
    """Users by variant beside what the weights promise.

    Attributes:
        observed: users by variant, of those that were counted for this.
        expected: the shares that the weights promise.
        p: always valid; below :data:`ALPHA` there is a mismatch.
    """

    observed: tuple[int, ...]
    expected: tuple[float, ...]
    p: float

    @property
    def mismatch(self) -> bool:
        """Whether nothing else should be believed."""
        return self.p < ALPHA


def sample_ratio(observed: Sequence[int], expected: Sequence[float], *, halvings: int = 0) -> SampleRatio:
    """The test.

    Args:
        observed: users by variant.
        expected: the promised shares, which sum to 1. A variant of share 0 is left out: while engines follow a change
            of weights one after the other, somebody still comes to it.
        halvings: how often the sample of users that this is made of was thinned out: each is a test of its own, and
            they share alpha (1/2, 1/4, …).
    """
    counts, shares = tuple(observed), tuple(expected)
    there = [(count, share) for count, share in zip(counts, shares, strict=True) if share > 0]
    total = sum(count for count, _ in there)
    if len(there) < 2 or not total:
        return SampleRatio(counts, shares, 1.0)
    evidence = lgamma(_CONCENTRATION) - lgamma(_CONCENTRATION + total)
    for count, share in there:
        prior = _CONCENTRATION * share
        evidence += lgamma(prior + count) - lgamma(prior) - count * log(share)
    return SampleRatio(counts, shares, exp(min(0.0, (halvings + 1) * log(2) - evidence)))
