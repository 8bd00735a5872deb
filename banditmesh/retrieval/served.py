"""The density as it is served: the contents with the highest rate of clicks near each user, out of all of them.

The rate of content a near user u, smoothed twice so that a new content is neither infinite nor hopeless:

    r_a(u) = (φ(u)·S_a + α p_a) / (φ(u)·I_a + α),   p_a = (C_a + α p) / (M_a + α),   p = Σ C / Σ M,

with C_a and M_a the decayed numbers of clicks and impressions, whoever they were of: near the user what happened there
counts, where little happened the content's own rate, where it is new the placement's (Nadaraya 1964 with an
empirical-Bayes prior, as Efron & Morris 1973). Without a user vector r_a = p_a: what is popular of late.

Its deviation is that of a Beta posterior, √(r (1 − r) / (n + α + 1)), where n = φ(u)·I_a is a lower bound of Kish's
effective sample size (Σ w)² / Σ w² of the impressions' weights w = decay · K ≤ 1.

Reading S and I of every content for every user is bound by memory. So there are two steps, as in any index for inner
products: one product of the user with all contents in the r directions in which the S_a vary most (the leading
eigenvectors of SᵀS, as in PCA), with I_a taken for M_a times the density of all impressions near the user; then the
best contents exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.retrieval.density import DensityParams, checked

Floats = NDArray[np.float32]
_EIGEN_SAMPLE: Final = 20_000
_SLICE: Final = 16_384
_REFINE: Final = 4
"""How many times as many contents are looked at exactly as are wanted, ..."""
_REFINE_LEAST: Final = 512
"""... and at least so many."""


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
        directions: float32[D, r], orthonormal.
        coarse: float32[n, r], the S_a in these directions.
        clicks, shows: float64[n], C_a and M_a, of the landmark's time.
        near: float32[D], Σ I_a / Σ M_a: the mean φ of all impressions.
    """

    params: DensityParams
    base: Mapping[str, NDArray[Any]]
    keys: NDArray[np.uint64]
    fresh: NDArray[np.int64]
    delta: Mapping[str, NDArray[Any]]
    directions: Floats
    coarse: Floats
    clicks: NDArray[np.float64]
    shows: NDArray[np.float64]
    near: Floats
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
        directions = _leading(base["clicks"], min(rank, params.features))
        total = float(base["show_mass"].sum())
        near = _summed(base["shows"]) / total if total > 0 else np.zeros(params.features)
        return cls(
            params,
            base,
            base["contents"],
            np.full(n, -1),
            {name: array[:0] for name, array in base.items()},
            directions,
            _in_directions(base["clicks"], directions),
            base["click_mass"],
            base["show_mass"],
            near.astype(np.float32),
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
        coarse = np.empty((size, self.coarse.shape[1]), np.float32)
        coarse[:n] = self.coarse[:n]
        coarse[stale] = _in_directions(self.base["clicks"][stale], self.directions)
        coarse[rows] = _in_directions(read["clicks"], self.directions)
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
            coarse,
            masses[0],
            masses[1],
            self.near,
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
        firsts = (phi @ self.table.directions) @ self.table.coarse.T
        near = np.maximum(phi @ self.table.near, 0)
        return [self._best(phi[user], firsts[user], float(near[user]), most, optimism) for user in range(len(users))]

    def _best(self, phi: Floats, first: Floats, near: float, most: int, optimism: float) -> Nearest:
        """The second step of one user. ``first``: float32[n], φ(u)·S_a about; it is overwritten."""
        wanted = min(max(_REFINE * most, _REFINE_LEAST), self._n_alive)
        first *= self._decay
        np.maximum(first, 0, out=first)
        first += self._prior
        below = self._shows * np.float32(near)
        below += self._smoothing
        first /= below
        rows = np.argpartition(first, len(first) - wanted)[len(first) - wanted :] if wanted else np.zeros(0, np.int64)
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


def _summed(sums: Floats) -> NDArray[np.float64]:
    """``float64[D]``: the sum of all rows."""
    total = np.zeros(sums.shape[1])
    for start in range(0, len(sums), _SLICE):
        total += sums[start : start + _SLICE].sum(axis=0, dtype=np.float64)
    return total
