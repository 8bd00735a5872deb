"""What ranks the articles of an impression: density as it is served, and what it must beat."""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.demo.news_world import NewsWorld
from banditmesh.retrieval.density import DensityParams, DensitySums, Events
from banditmesh.retrieval.served import DensityTable
from banditmesh.retrieval.user_vector import Weights, pack, pooled

Scores = NDArray[np.float64]
Articles = NDArray[np.int64]
REMEMBERED = 30


class Histories:
    """What each reader clicked last, and the user vector of it."""

    def __init__(self, world: NewsWorld) -> None:
        self.world = world
        self._clicks: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.weights = Weights(recency_s=7 * 86_400.0, target=0, dwell=0, inverse_popularity=0)

    def add(self, reader: int, article: int, now_s: float) -> None:
        self._clicks[reader] = [*self._clicks[reader], (article, now_s)][-REMEMBERED:]

    def articles(self, reader: int) -> list[int]:
        return [article for article, _ in self._clicks[reader]]

    def vector(self, reader: int, now_s: float) -> NDArray[np.float32]:
        """``float32[1, d]``; 0 for a reader who has clicked nothing."""
        last = self._clicks[reader]
        ages = np.array([now_s - at_s for _, at_s in last])
        nothing = np.zeros(len(last))
        weights = self.weights.of(ages, nothing.astype(np.bool_), nothing, nothing)
        return pooled(self.world.vectors[[article for article, _ in last]], weights, np.array([0, len(last)]))


class Method(Protocol):
    """Ranks, and learns from what was logged."""

    def score(self, reader: int, articles: Articles, now_s: float) -> Scores:
        """``float64[n]``."""
        ...

    def learn(self, reader: int, articles: Articles, clicked: NDArray[np.bool_], now_s: float) -> None:
        """What an impression came to."""
        ...


class Popularity:
    """Clicks over impressions, smoothed; ``half_life_s``: of both, None: for ever."""

    def __init__(self, n: int, half_life_s: float | None = None, smoothing: float = 10.0) -> None:
        self._half_life_s = half_life_s
        self._sums = np.zeros((2, n))
        self._last_s = np.zeros(n)
        self._smoothing = smoothing

    def _left(self, articles: Articles, now_s: float) -> Scores:
        if self._half_life_s is None:
            return np.ones(len(articles))
        left: Scores = np.exp2(-(now_s - self._last_s[articles]) / self._half_life_s)
        return left

    def score(self, reader: int, articles: Articles, now_s: float) -> Scores:
        clicks, shows = self._sums[:, articles] * self._left(articles, now_s)
        prior = self._sums[0].sum() / max(self._sums[1].sum(), 1)
        rate: Scores = (clicks + self._smoothing * prior) / (shows + self._smoothing)
        return rate

    def learn(self, reader: int, articles: Articles, clicked: NDArray[np.bool_], now_s: float) -> None:
        self._sums[:, articles] *= self._left(articles, now_s)
        self._last_s[articles] = now_s
        self._sums[0, articles] += clicked
        self._sums[1, articles] += 1


class Cosine:
    """The cosine of the user vector with each article's."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories

    def score(self, reader: int, articles: Articles, now_s: float) -> Scores:
        scores: Scores = (self._histories.world.vectors[articles] @ self._histories.vector(reader, now_s)[0]).astype(
            float
        )
        return scores

    def learn(self, reader: int, articles: Articles, clicked: NDArray[np.bool_], now_s: float) -> None:
        pass


class ItemKnn:
    """Articles that the readers of one's own articles clicked too: the sum of cosines of click sets (Sarwar et al.
    2001), with a shrinkage of 10; counts within a day."""

    def __init__(self, n: int, histories: Histories) -> None:
        self._together = np.zeros((n, n), np.float32)
        self._clicks = np.zeros(n)
        self._histories = histories

    def score(self, reader: int, articles: Articles, now_s: float) -> Scores:
        mine = self._histories.articles(reader)
        if not mine:
            return self._clicks[articles]
        both = self._together[np.ix_(mine, articles)]
        norms = np.sqrt(self._clicks[mine][:, None] * self._clicks[articles]) + 10
        scores: Scores = (both / norms).sum(axis=0)
        return scores

    def learn(self, reader: int, articles: Articles, clicked: NDArray[np.bool_], now_s: float) -> None:
        mine = self._histories.articles(reader)
        for article in articles[clicked].tolist():
            self._together[article, mine] += 1
            self._together[mine, article] += 1
            self._clicks[article] += 1


class Density:
    """What is served: sums, a full snapshot and deltas, every ``publish_s`` of the town's time."""

    def __init__(
        self, params: DensityParams, histories: Histories, smoothing: float = 10.0, publish_s: float = 5.0
    ) -> None:
        self._histories = histories
        self._sums = DensitySums(params)
        self._params = params
        self._smoothing = smoothing
        self._publish_s = publish_s
        self._table: DensityTable | None = None
        self._rows: dict[int, int] = {}
        self._published_s = -np.inf
        self._waiting: list[tuple[NDArray[np.uint64], bytes, NDArray[np.bool_], float]] = []

    def score(self, reader: int, articles: Articles, now_s: float) -> Scores:
        if now_s - self._published_s >= self._publish_s:
            self._publish(now_s)
        found = np.zeros(len(articles))
        if self._table is None:
            return found
        rows = np.array([self._rows.get(article, -1) for article in articles.tolist()])
        known = rows >= 0
        phi = self._params.kernel.phi(self._histories.vector(reader, now_s))[0]
        if not self._histories.articles(reader):
            phi[:] = 0
        rate, _ = self._rates.exact(phi, rows[known])
        found[known] = rate
        found[~known] = self._everywhere
        return found

    def learn(self, reader: int, articles: Articles, clicked: NDArray[np.bool_], now_s: float) -> None:
        user = pack(self._histories.vector(reader, now_s))[0]
        self._waiting.append((articles.astype(np.uint64), user, clicked, now_s))

    def _publish(self, now_s: float) -> None:
        self._published_s = now_s
        for articles, user, clicked, at_s in self._waiting:
            n, n_clicked = len(articles), int(clicked.sum())
            self._sums.shown(Events(articles, [user] * n, np.full(n, at_s)))
            self._sums.clicked(Events(articles[clicked], [user] * n_clicked, np.full(n_clicked, at_s)))
        self._waiting.clear()
        if not len(self._sums):
            return
        if self._table is None or self._sums.changed > len(self._sums) // 2 or not self._sums.can_be_delta:
            self._table = DensityTable.of(self._params, self._sums.full(), 8)
        else:
            self._table = self._table.with_delta(self._sums.delta())
        self._rows = {int(key): row for row, key in enumerate(self._table.keys.tolist())}
        self._rates = self._table.rates(np.ones(len(self._table), np.bool_), now_s, self._smoothing)
        self._everywhere = float(self._table.clicks.sum() / max(self._table.shows.sum(), 1e-9))
