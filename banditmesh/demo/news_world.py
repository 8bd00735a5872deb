"""A town that reads news: a simulation whose truth is known.

Every article has an audience, a place in the space of tastes that nobody sees; its vector, made of its words, says
where that is only about. Its appeal fades, by hours for most, by minutes for breaking news, which comes out of a
clear sky and is read in one quarter of the town. A reader clicks with a probability that falls with the distance
between taste and audience. So words alone do not know what is hot, counts alone do not know for whom, and both is in
the clicks of the neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
DIMENSIONS: Final = 16
_TOPICS: Final = 12


@dataclass(frozen=True)
class Rates:
    """How the town is.

    Attributes:
        articles: Published from the beginning to the end.
        readers: People.
        length_s: How long it is watched.
        life_s: After about so long an article's appeal has halved.
        breaking: How many of the articles are breaking news.
        breaking_life_s: The same of those.
        yesterday: Articles from the day before, which nobody wants any more; what readers opened of them tells where
            they are.
    """

    articles: int = 800
    readers: int = 500
    length_s: float = 86_400.0
    life_s: float = 3 * 3600.0
    breaking: int = 24
    breaking_life_s: float = 1800.0
    yesterday: int = 0


@dataclass(frozen=True, eq=False)
class NewsWorld:
    """See the module.

    Attributes:
        born_s: float64[n_articles], ascending.
        vectors: float32[n_articles, 16], what their words say.
        audience: float32[n_articles, 16], where they are liked.
        appeal: float64[n_articles], when they are new.
        life_s: float64[n_articles].
        breaking: bool[n_articles].
        tastes: float32[n_readers, 16].
        topic: int64[n_articles].
        yesterday: How many of the articles, the first ones, are from the day before.
    """

    born_s: NDArray[np.float64]
    vectors: Floats
    audience: Floats
    appeal: NDArray[np.float64]
    life_s: NDArray[np.float64]
    breaking: NDArray[np.bool_]
    tastes: Floats
    topic: NDArray[np.int64]
    yesterday: int = 0

    @classmethod
    def make(cls, rates: Rates, seed: int) -> NewsWorld:
        """Out of a seed."""
        rng = np.random.default_rng(seed)
        n = rates.yesterday + rates.articles
        topics = _unit(rng.standard_normal((_TOPICS, DIMENSIONS)))
        topic = rng.integers(0, _TOPICS, n)
        audience = _unit(topics[topic] + 0.16 * rng.standard_normal((n, DIMENSIONS)))
        breaking = np.zeros(n, np.bool_)
        first = rates.yesterday + rates.articles // 10
        breaking[rng.choice(np.arange(first, n), min(rates.breaking, rates.articles // 2), replace=False)] = True
        old = np.sort(rng.uniform(-rates.length_s, -rates.length_s / 2, rates.yesterday))
        return cls(
            np.concatenate([old, np.sort(rng.uniform(-rates.life_s, rates.length_s, rates.articles))]),
            # Breaking news is worded unlike anything that its readers have read.
            _unit(audience * (~breaking)[:, None] + 0.2 * rng.standard_normal((n, DIMENSIONS))),
            audience,
            np.where(breaking, 0.9, np.minimum(0.8, 0.3 * rng.lognormal(0, 0.8, n))),
            np.where(breaking, rates.breaking_life_s, rates.life_s * rng.lognormal(0, 0.5, n)),
            breaking,
            _unit(
                topics[rng.integers(0, _TOPICS, rates.readers)]
                + 0.12 * rng.standard_normal((rates.readers, DIMENSIONS))
            ),
            topic,
            rates.yesterday,
        )

    @property
    def gone_s(self) -> NDArray[np.float64]:
        """float64[n_articles]: when nobody shows them any more: six half-lives after they came out."""
        return self.born_s + 6 * self.life_s

    def alive(self, now_s: float) -> NDArray[np.int64]:
        """int64[n]: the articles that one may show."""
        return np.flatnonzero((now_s >= self.born_s) & (now_s < self.gone_s))

    def opened(self, reader: int, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """int64[n]: what a reader opened the day before: drawn by the probability of a click on each when it was
        new."""
        of = np.arange(self.yesterday)
        chances = self.appeal[of] * self._liking(reader, of)
        return rng.choice(of, min(n, len(of)), replace=False, p=chances / chances.sum())

    def clicks(self, reader: int, articles: NDArray[np.int64], now_s: float) -> NDArray[np.float64]:
        """float64[n]: with which probability the reader clicks each."""
        fresh = np.exp2(-np.maximum(now_s - self.born_s[articles], 0) / self.life_s[articles])
        chances: NDArray[np.float64] = self.appeal[articles] * fresh * self._liking(reader, articles)
        return chances

    def _liking(self, reader: int, articles: NDArray[np.int64]) -> NDArray[np.float64]:
        squared = ((self.audience[articles] - self.tastes[reader]) ** 2).sum(axis=1)
        liking: NDArray[np.float64] = 0.04 + np.exp(-squared / (2 * 0.5**2))
        return liking


def _unit(vectors: NDArray[np.float64]) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / lengths).astype(np.float32)
    return unit


def day_of(length_s: float) -> Rates:
    """A town whose day has so many seconds, for a demo: fewer people, and articles that fade as fast as its day does.

    A machine shows some ten thousands of impressions in that time, and the town is as large as they allow: hundreds of
    impressions an article, so that something can be known of it before it fades, dozens a reader, so that nobody has
    read all that is good, and a day before, for readers of a newspaper are no strangers to it.
    """
    return Rates(
        articles=160,
        readers=800,
        length_s=length_s,
        life_s=length_s / 5,
        breaking=6,
        breaking_life_s=length_s / 10,
        yesterday=120,
    )
