"""The density as it is served: the contents with the highest rate of clicks near each user, out of all of them.

The rate of content a near user u, smoothed twice so that a new content is neither infinite nor hopeless:

    r_a(u) = (φ(u)·S_a + α p_a) / (φ(u)·I_a + α),   p_a = (C_a + α p) / (M_a + α),   p = Σ C / Σ M,

with C_a and M_a the decayed numbers of clicks and impressions, whoever they were of: near the user what happened there
counts, where little happened the content's own rate, where it is new the placement's (Nadaraya 1964 with an
empirical-Bayes prior, as Efron & Morris 1973). Without a user vector r_a = p_a: what is popular of late.

Its deviation is that of a Beta posterior, √(r (1 − r) / (n + α + 1)), where n = φ(u)·I_a is a lower bound of Kish's
effective sample size (Σ w)² / Σ w² of the impressions' weights w = decay · K ≤ 1.

Reading S and I of every content for every user is bound by memory. So there are two steps, as in any index for inner
products: one product of the user with all contents in few directions, three quarters of them those in which the S_a
vary most and one quarter those of the I_a (the leading eigenvectors of SᵀS, as in PCA); then the best contents exactly.
The first step is in `banditmesh.retrieval.shortlist`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.retrieval.density import DensityParams, checked
from banditmesh.retrieval.shortlist import shortlist

Floats = NDArray[np.float32]
_EIGEN_SAMPLE: Final = 20_000
_SLICE: Final = 16_384
_SHOWS: Final = 4
"""One direction in so many is one of impressions."""
_REFINE: Final = 6
"""How many times as many contents are looked at exactly as are wanted, ..."""
_REFINE_LEAST: Final = 768
"""... and at least so many."""
_SUMS: Final = ("clicks", "shows")


class Nearest(NamedTuple):
    """The best contents for one user, the best first.

    Attributes:
        rows: int64[k], of the table.
        rate: float32[k].
        deviation: float32[k].
    """

    rows: NDArray[np.int64]
    rate: Floats
    deviation: Floats


@dataclass(frozen=True, eq=False)
class DensityTable:
    """A full snapshot and a delta to it; immutable, so that it can be exchanged between two requests.

    Attributes:
        params: What the sums depend on.
        base: Of the full snapshot, as they were loaded (memory-mapped, perhaps).
        keys: uint64[n], content keys: those of the full snapshot, ascending, then those that only the delta has.
        fresh: int64[n], the row of the delta that stands for a content; -1: none does.
        delta: Of the delta; empty arrays without one.
        directions: float32[D, r] each, orthonormal: of clicks, of shows.
        coarse: float32[n, r] each, S_a and I_a in these directions.
        clicks, shows: float64[n], C_a and M_a, of the landmark's time.
    """

    params: DensityParams
    base: Mapping[str, NDArray[Any]]
    keys: NDArray[np.uint64]
    fresh: NDArray[np.int64]
    delta: Mapping[str, NDArray[Any]]
    directions: tuple[Floats, Floats]
    coarse: tuple[Floats, Floats]
    clicks: NDArray[np.float64]
    shows: NDArray[np.float64]
    landmark_s: float

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, params: DensityParams, full: Mapping[str, NDArray[Any]], rank: int) -> Self:
        """The table of a full snapshot. ``rank``: directions of the first step. Raises InvalidTensors."""
        base = checked(params, full)
        order = np.argsort(base["contents"], kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            base = {name: array[order] if len(array) == len(order) else array for name, array in base.items()}
            base |= {name: full[name] for name in ("clock", "events")}
        n = len(base["contents"])
        rank = min(rank, params.features)
        of_shows = max(rank // _SHOWS, 1)
        directions = _leading(base["clicks"], max(rank - of_shows, 1)), _leading(base["shows"], of_shows)
        return cls(
            params,
            base,
            base["contents"],
            np.full(n, -1),
            {name: array[:0] for name, array in base.items()},
            directions,
            (_in_directions(base["clicks"], directions[0]), _in_directions(base["shows"], directions[1])),
            base["click_mass"],
            base["show_mass"],
            float(base["clock"][0]),
        )

    def with_delta(self, delta: Mapping[str, NDArray[Any]]) -> DensityTable:
        """The table of the same full snapshot with another delta instead of its own. Raises InvalidTensors."""
        read = checked(self.params, delta)
        n = len(self.base["contents"])
        at = np.searchsorted(self.base["contents"], read["contents"])
        known = at < n
        known[known] = self.base["contents"][at[known]] == read["contents"][known]
        rows = np.where(known, at, -1)
        rows[~known] = n + np.arange(int((~known).sum()))
        size = n + int((~known).sum())
        fresh = np.full(size, -1)
        fresh[rows] = np.arange(len(rows))
        stale = np.flatnonzero(self.fresh[:n] >= 0)
        coarses = []
        for name, directions, before in zip(_SUMS, self.directions, self.coarse, strict=True):
            coarse = np.empty((size, before.shape[1]), np.float32)
            coarse[:n] = before[:n]
            coarse[stale] = _in_directions(self.base[name][stale], directions)
            coarse[rows] = _in_directions(read[name], directions)
            coarses.append(coarse)
        masses = []
        for name in ("click_mass", "show_mass"):
            mass = np.zeros(size)
            mass[:n] = self.base[name]
            mass[rows] = read[name]
            masses.append(mass)
        return DensityTable(
            self.params,
            self.base,
            np.concatenate([self.base["contents"], read["contents"][~known]]),
            fresh,
            read,
            self.directions,
            (coarses[0], coarses[1]),
            masses[0],
            masses[1],
            self.landmark_s,
        )

    def popularity(self, contents: NDArray[np.uint64], now_s: float) -> NDArray[np.float64]:
        """``float64[n]``: C_a of contents, now; 0 for one that is not in the full snapshot."""
        known = self.base["contents"]
        if not len(known):
            return np.zeros(len(contents))
        at = np.minimum(np.searchsorted(known, contents), len(known) - 1)
        clicks = np.where(known[at] == contents, self.clicks[at], 0.0)
        return clicks * float(np.exp2((self.landmark_s - now_s) / self.params.half_life_s))

    def sums(self, name: str, rows: NDArray[np.int64]) -> Floats:
        """``float32[k, D]``: "clicks" or "shows" of rows."""
        n = len(self.base["contents"])
        found: Floats = (
            self.base[name].take(np.minimum(rows, max(n - 1, 0)), axis=0)
            if n
            else np.zeros((len(rows), self.params.features), np.float32)
        )
        fresh = self.fresh[rows]
        changed = np.flatnonzero(fresh >= 0)
        found[changed] = self.delta[name][fresh[changed]]
        return found

    def rates(self, alive: NDArray[np.bool_], now_s: float, smoothing: float) -> Rates:
        """What of the rates does not depend on the user. ``alive``: bool[n], which contents may be proposed."""
        decay = float(np.exp2((self.landmark_s - now_s) / self.params.half_life_s))
        clicks, shows = self.clicks * decay, self.shows * decay
        total = float(shows.sum())
        everywhere = float(clicks.sum()) / total if total > 0 else 0.0
        own = (clicks + smoothing * everywhere) / (shows + smoothing)
        prior = np.where(alive, smoothing * own, -np.inf)
        return Rates(
            self, alive, decay, smoothing, own.astype(np.float32), prior.astype(np.float32), shows.astype(np.float32)
        )


class Rates:
    """A table at a moment. Good for a second or so: nothing of it fades faster."""

    def __init__(
        self,
        table: DensityTable,
        alive: NDArray[np.bool_],
        decay: float,
        smoothing: float,
        own: Floats,
        prior: Floats,
        shows: Floats,
    ) -> None:
        """``own``: p_a; ``prior``: α p_a, -inf for what may not be proposed; ``shows``: M_a. ``float32[n]`` each."""
        self.table = table
        self._n_alive = int(alive.sum())
        self._decay = np.float32(decay)
        self._smoothing = np.float32(smoothing)
        self._own = own
        self._prior = prior
        self._shows = shows

    def nearest(self, users: Floats, most: int, optimism: float = 0.0) -> list[Nearest]:
        """The contents with the highest rate plus ``optimism`` deviations for each user.

        Args:
            users: ``float32[n_users, d]``, user vectors; all 0: a user of whom nothing is known.
            most: Contents for each at most.
            optimism: 0: by the rate alone.
        """
        known = users.any(axis=1)
        phi = self.table.params.kernel.phi(users)
        phi[~known] = 0
        wanted = min(max(_REFINE * most, _REFINE_LEAST), self._n_alive)
        of_clicks, of_shows = (phi @ directions * self._decay for directions in self.table.directions)
        likely = shortlist((of_clicks, of_shows), self.table.coarse, self._prior, float(self._smoothing), wanted)
        return [self._best(phi[user], rows, most, optimism) for user, rows in enumerate(likely)]

    def _best(self, phi: Floats, rows: NDArray[np.int64], most: int, optimism: float) -> Nearest:
        """The second step of one user: the best of some contents, exactly."""
        rate, deviation = self.exact(phi, rows)
        value = rate + np.float32(optimism) * deviation
        order = np.lexsort((self.table.keys[rows], -value))[:most]
        return Nearest(rows[order], rate[order], deviation[order])

    def exact(self, phi: Floats, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """``float32[k]`` each: r_a and its deviation for rows. ``phi``: float32[D], all 0 where the user is not
        known."""
        table = self.table
        clicks = np.maximum(table.sums("clicks", rows) @ phi * self._decay, 0)
        shows = np.maximum(table.sums("shows", rows) @ phi * self._decay, 0)
        sample = shows if phi.any() else self._shows[rows]
        rate = (clicks + self._smoothing * self._own[rows]) / (shows + self._smoothing)
        spread = np.clip(rate * (1 - rate), 0, None)
        return rate, np.sqrt(spread / (sample + self._smoothing + 1))


def _leading(sums: Floats, rank: int) -> Floats:
    """``float32[D, rank]``: the leading eigenvectors of the contents' second moments, each content of the same
    weight."""
    step = max(1, len(sums) // _EIGEN_SAMPLE)
    sample = np.asarray(sums[::step])
    lengths = np.linalg.norm(sample, axis=1, keepdims=True)
    rows = sample / np.where(lengths > 0, lengths, 1)
    _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    return np.ascontiguousarray(vectors[:, ::-1][:, :rank], np.float32)


def _in_directions(sums: Floats, directions: Floats) -> Floats:
    """``float32[n, r]``, piece by piece: a memory-mapped snapshot is read once and never copied as a whole."""
    out = np.empty((len(sums), directions.shape[1]), np.float32)
    for start in range(0, len(sums), _SLICE):
        np.matmul(sums[start : start + _SLICE], directions, out=out[start : start + _SLICE])
    return out
