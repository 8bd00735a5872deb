"""Fitting taste: factors of contents by `implicit`'s alternating least squares, and the k of a blend by replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.als import Als, AlsParams, confidences
from banditmesh.bandits.feedback import Feedback
from banditmesh.fit.interactions import Interactions
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument

KS: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
BUCKETS: Final = (0, 1, 3, 6, 11, 21)
"""Counts of feedback at which a bucket begins."""
TOP: Final = 10
_STEPS: Final = 20_000
"""Of a replay that are ranked at most, evenly out of all: each ranks every content."""


def fit(
    params: AlsParams,
    found: Interactions,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Als:
    """The policy with the factors that feedback gives.

    Raises:
        FailedPrecondition: `implicit` is not installed.
        InvalidArgument: Nobody did anything that has a weight.
    """
    least_squares, sparse, limits = _packages()
    said = confidences(params, found.users, found.contents, found.kinds, found.amounts)
    if not len(said.values):
        raise InvalidArgument("no feedback has a weight; see the parameters of als", field="log")
    keys, columns = np.unique(said.contents, return_inverse=True)
    matrix = sparse.csr_matrix(
        (said.values.astype(np.float32), (said.users, columns)), shape=(found.n_users, len(keys))
    )
    with limits(1, "blas"):  # its own threads are quicker than those of the linear algebra
        model = least_squares(
            factors=params.factors,
            regularization=params.regularization,
            iterations=params.iterations,
            alpha=1.0,
            use_cg=params.factors > 128,  # exact where that is quick
            random_state=seed,
        )
        model.fit(matrix, show_progress=False, callback=lambda at, *_: tell(at + 1, params.iterations))
    services = np.array([found.services[key] for key in keys.tolist()], np.uint64)
    return Als.fitted(params, keys, services, np.asarray(model.item_factors, np.float32))


def _packages() -> tuple[Any, Any, Any]:
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy import sparse
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise FailedPrecondition(
            f"als fit needs the package implicit ({error})", hint="install banditmesh[als]"
        ) from error
    return AlternatingLeastSquares, sparse, threadpool_limits


class Replayed(NamedTuple):
    """How well the next content that a user liked was ranked, by what the user had done before.

    Attributes:
        counts: int64[m], the user's feedback before each step.
        popular, personal: float64[m], the gain (1 / log2(1 + rank) within the first ten, else 0) of either end.
        blends: float64[m, n_ks], that of the blend for each k.
        ks: What k was.
    """

    counts: NDArray[np.int64]
    popular: NDArray[np.float64]
    personal: NDArray[np.float64]
    blends: NDArray[np.float64]
    ks: Sequence[float]

    @property
    def best(self) -> int:
        """Of the k that rank no worse than the better end in any bucket of counts the one that ranks best, every bucket
        counting the same: users are few in none of them. Where there is no such k, the one that loses least."""
        buckets = np.searchsorted(BUCKETS, self.counts, "right") - 1
        here = [buckets == each for each in np.unique(buckets) if each]
        if not here:
            return 0
        blends = np.array([self.blends[each].mean(axis=0) for each in here])
        ends = np.array([max(self.popular[each].mean(), self.personal[each].mean()) for each in here])
        worst = (blends - ends[:, None]).min(axis=0)
        harmless = worst >= 0
        return int(np.argmax(np.where(harmless, blends.mean(axis=0), -1.0) if harmless.any() else worst))

    def table(self, k: int) -> list[tuple[str, int, float, float, float]]:
        """By bucket of counts: its name, steps, and the mean gains of popularity, taste and the blend with that k."""
        buckets = np.searchsorted(BUCKETS, self.counts, "right") - 1
        rows = []
        for at in np.unique(buckets).tolist():
            first, here = BUCKETS[at], buckets == at
            last = BUCKETS[at + 1] - 1 if at + 1 < len(BUCKETS) else None
            name = f"{first}+" if last is None else str(first) if last == first else f"{first}-{last}"
            means = (each[here].mean() for each in (self.popular, self.personal, self.blends[:, k]))
            rows.append((name, int(here.sum()), *map(float, means)))
        return rows  # type: ignore[return-value]


def replay(
    params: AlsParams,
    found: Interactions,
    half_life_s: float,
    *,
    ks: Sequence[float] = KS,
    newcomers: float = 0.25,
    steps: int = _STEPS,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Als, Replayed]:
    """Fit on those who came first, and replay the others' feedback in the order of time: before each thing that a user
    liked, rank all contents that the user has not touched, by the counters and the feedback of that moment.

    Args:
        half_life_s: Of the counters.
        newcomers: Share of the users, those who came last, that are replayed.
    """
    came_s = np.full(found.n_users, np.inf)
    np.minimum.at(came_s, found.users, found.times_s)
    border = np.quantile(came_s[np.isfinite(came_s)], 1 - newcomers)
    new = came_s > border
    als = fit(params, found.take(~new[found.users] & (found.times_s <= border)), seed)
    rows = als.rows(found.contents)
    liked = confidences(params, np.arange(len(found)), found.contents, found.kinds, found.amounts)
    good = np.zeros(len(found), np.bool_)
    good[liked.users[liked.values > 0]] = True
    wanted = np.flatnonzero(new[found.users] & good & (rows >= 0))
    ranked = set(wanted[np.linspace(0, len(wanted) - 1, min(steps, len(wanted))).astype(int)].tolist())
    counters, last_s = np.zeros(len(als.keys)), float(found.times_s[0])
    past: dict[int, list[int]] = {}
    gains: list[tuple[float, ...]] = []
    for at in range(len(found)):
        if not at % 4096:
            tell(at, len(found))
        counters *= 2.0 ** ((last_s - found.times_s[at]) / half_life_s)
        last_s = float(found.times_s[at])
        user, row = int(found.users[at]), int(rows[at])
        if at in ranked:
            gains.append(_gains(als, found, counters, row, past.get(user, []), ks))
        if new[user]:
            past.setdefault(user, []).append(at)
        if row >= 0 and good[at]:
            counters[row] += 1.0
    columns = np.array(gains).reshape(len(gains), 3 + len(ks))
    return als, Replayed(columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2], columns[:, 3:], ks)


def _gains(
    als: Als, found: Interactions, counters: NDArray[np.float64], row: int, past: Sequence[int], ks: Sequence[float]
) -> tuple[float, ...]:
    """The user's count, and the gain of the content in that row by popularity, by taste, and by each blend."""
    n, own = len(past), np.array(past[-als.params.feedback :], np.int64)
    contents = found.contents[own]
    feedback = Feedback(np.array([0, len(own)]), contents, found.kinds[own], found.amounts[own], np.array([n]))
    left = np.ones(len(counters), np.bool_)
    touched = als.rows(found.contents[np.array(past, np.int64)])
    left[touched[touched >= 0]] = False
    if not left[row]:
        left[row] = True  # liked again: it can be found again
    popular = _standard(counters, left)
    taste = als.factors @ als.users(feedback)[0]
    personal = _standard(taste, left) if taste.any() else np.zeros(len(taste))
    known = bool(taste.any())
    weights = [n / (n + k) if known else 0.0 for k in ks]
    mixed = [popular, personal, *((1 - w) * popular + w * personal for w in weights)]
    return (float(n), *(_gain(each, left, row) for each in mixed))


def _standard(values: NDArray[np.floating], left: NDArray[np.bool_]) -> NDArray[np.float64]:
    spread = values[left].std()
    return np.asarray((values - values[left].mean()) / (spread if spread > 0 else 1.0), np.float64)


def _gain(scores: NDArray[np.float64], left: NDArray[np.bool_], row: int) -> float:
    """Ties are shared: the rank is that in the middle of those that are equal."""
    above = np.count_nonzero(scores[left] > scores[row])
    equal = np.count_nonzero(scores[left] == scores[row]) - 1
    rank = above + equal / 2
    return float(1.0 / np.log2(rank + 2)) if rank < TOP else 0.0
