"""Why an estimate should not be believed, in words."""

from __future__ import annotations

import math

from banditmesh.ope.rows import LARGEST_WEIGHT
from banditmesh.ope.support import Support
from banditmesh.ope.unseen import Unseen

_FEWEST_EFFECTIVE = 100.0
_SMALLEST_SHARE = 0.01
_EVEN = 0.9
_FAR = 0.2
_ONE_ROW = 0.1
_NEVER = 0.01


def warnings(support: Support, unseen: Unseen, row: str = "row") -> list[str]:
    """One sentence or two for each thing that is wrong; none when the log supports the policy.

    Args:
        support: the weights.
        unseen: contents that were never shown.
        row: what a key of `Rows` is called, such as "line".
    """
    n, mean, effective = support.n, support.mean_weight, support.effective
    if not n:
        return ["no rows: nothing is known"]
    found = []
    if unseen.share > _NEVER:
        found.append(
            f"{unseen.share:.0%} of what the policy would show are contents that the log never showed: "
            "what they earn is not in it"
        )
    if support.shifted and mean < 1:
        found.append(
            f"the mean weight is {mean:.3g} and not 1: {1 - mean:.0%} of the policy's decisions have no support in the "
            "log; the interval spans whatever they might earn"
        )
    elif support.shifted:
        found.append(
            f"the mean weight is {mean:.3g} and not 1: the logged propensities are not those with which it was shown, "
            "and no estimate is to be trusted"
        )
    elif math.fabs(mean - 1) > _FAR:
        found.append(f"the mean weight is {mean:.3g}, far from 1: what decides is rarely or never in the log")
    if effective < _EVEN * n and (effective < _FEWEST_EFFECTIVE or effective < _SMALLEST_SHARE * n):
        found.append(f"the effective sample size is {effective:.3g} of {n}: the other rows say nothing of this policy")
    elif n < _FEWEST_EFFECTIVE:
        found.append(f"there are {n} rows only")
    if support.largest >= LARGEST_WEIGHT * (1 - 1e-9):
        found.append(
            f"{row} {support.largest_key} has a propensity so small that its weight is {LARGEST_WEIGHT:g} or more, and "
            "counts as that: look at the bounds and at clipped_ips"
        )
    elif support.largest > _ONE_ROW * mean * n > 0 and n >= _FEWEST_EFFECTIVE:
        share = support.largest / (mean * n)
        found.append(f"{row} {support.largest_key} alone has {share:.0%} of the weight")
    return found
