"""Regret through drift and a shift, and how soon new arms get their share: what the default does by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.online.runs import Rows
from benchmarks.online.simulations import Simulation

DECISIONS: Final = 40_000
WORLD: Final = Simulation(
    decisions=DECISIONS, alive=2_000, offered=20, born=50, drift=0.3, shift=DECISIONS // 2, users=5_000, bias=-3.0
)
_LEVEL: Final = 2_000
"""Decisions of one level of regret."""
_FIRST: Final = (50, 100, 200)


@dataclass(frozen=True)
class Drift:
    """What became of a run.

    Attributes:
        regret: chance of a click of the best candidate less that of what was picked, on average.
        random: the same of picking at random.
        before: regret of the last decisions before the shift.
        back: decisions from the shift until regret is at that level again; None: not until the end.
        shares: of arms born on the way, impressions as a multiple of those of all candidates alike, while they were
            offered for the first 50, 100 and 200 times.
        usual: the same of all others.
    """

    regret: float
    random: float
    before: float
    back: int | None
    shares: tuple[float, ...]
    usual: float


def followed(rows: Rows, picked: list[int]) -> Drift:
    """What became of a run over rows of `WORLD`."""
    means = np.array([[each["mean"] for each in row["candidates"]] for row in rows])
    regret = means.max(axis=1) - means[np.arange(len(rows)), picked]
    levels = regret.reshape(-1, _LEVEL).mean(axis=1)
    shift = WORLD.shift // _LEVEL
    back = np.flatnonzero(levels[shift:] <= levels[shift - 1])
    offers, shown, new = _offers(rows, picked)
    n = means.shape[1]
    return Drift(
        float(regret.mean()),
        float((means.max(axis=1) - means.mean(axis=1)).mean()),
        float(levels[shift - 1]),
        (int(back[0]) + 1) * _LEVEL if len(back) else None,
        tuple(float(shown[new & (offers < most)].mean() * n) for most in _FIRST),
        float(shown[~new].mean() * n),
    )


def _offers(rows: Rows, picked: list[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each candidate of each row: how often it was offered before, whether it was picked, whether it was born on
    the way."""
    count: dict[str, int] = {}
    offers, shown, new = [], [], []
    for row, pick in zip(rows, picked, strict=True):
        for at, each in enumerate(row["candidates"]):
            name = each["id"]
            offers.append(count.get(name, 0))
            count[name] = offers[-1] + 1
            shown.append(at == pick)
            new.append(int(name[1:]) >= WORLD.alive)
    return np.array(offers), np.array(shown), np.array(new)
