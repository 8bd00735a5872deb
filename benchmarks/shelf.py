"""Taste, blend and cache in figures: ``make bench-shelf`` writes ``benchmarks/shelf.md``.

The data is MovieLens 100k (for research only; fetched into the cache folder, never committed).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing
from banditmesh.bandits.als import Als, AlsParams
from banditmesh.bandits.blend import Blend, BlendParams
from banditmesh.bandits.feedback import KINDS, Feedback
from banditmesh.bandits.popularity import Popularity
from banditmesh.bandits.registry import model_name
from banditmesh.demo.movielens import Ratings, movielens
from banditmesh.fit.als import fit, replay
from banditmesh.fit.interactions import Interactions
from banditmesh.local import cache
from banditmesh.runtime.logging import configure_logging
from benchmarks import shelf_served
from services.crs_engine.models import FALLBACK, LoadedModel
from services.crs_engine.pipeline import ranked
from services.crs_engine.popular_contents import PopularContents
from tests.support.engine_batch import NOW_S, Bench, BenchReads, FixedModels

SERVICE = shelf_served.SERVICE
CLICK = KINDS.index("click")
TIMES = 60
USERS = 32
EVERY_S = 186.0
"""As if the ratings had come evenly over their seven months."""
SHARES = shelf_served.SHARES
MESH = """
services:
  films: {{logics: [all]}}
placements:
  head:
    sources: [films/all]
    retrieve: {{als: {{share: 100}}, popularity: {{share: 100}}}}
    features: {{content: [genre]}}
    {cache}
    experiment:
      variants:
        blend: {{weight: {share}, policy: {{blend: {{}}}}, explore: {{epsilon_greedy: {{epsilon: 0.05}}}}}}
        popular: {{weight: {rest}, policy: popularity, explore: {{epsilon_greedy: {{epsilon: 0.05}}}}}}
"""

RESPONSE = (
    "## Response time",
    "",
    "The published system's graph: does response time grow with the share of users on the model? A list of ten through",
    f"a real engine and a real Valkey, over a socket, {shelf_served.AT_ONCE} calls at once, ten placements in turns",
    f"in one process; {shelf_served.TURNS * shelf_served.CALLS:,} calls each, {shelf_served.USERS} users whose first",
    "list was drawn before. Who is on the model gets what `als` and popularity propose, ranked by the blend; others",
    "get what is popular. CPU is that of the engine's process for a list.",
)


def interactions(ratings: Ratings) -> Interactions:
    """Every rating as a click, as the published figures for implicit feedback take them."""
    rows = zip(ratings.user.tolist(), ratings.item.tolist(), strict=True)
    return Interactions.of(
        (ratings.users[user], SERVICE, ratings.items[item], "click", 1.0, EVERY_S * at)
        for at, (user, item) in enumerate(rows)
    )


def ranking(found: Interactions, params: AlsParams) -> list[tuple[str, float, float]]:
    """P@10 and nDCG@10 on a random fifth: by rows folded in here, and by `implicit` itself."""
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.evaluation import ranking_metrics_at_k
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    test = np.random.default_rng(0).random(len(found)) < 0.2
    als = fit(params, found.take(~test), seed=1)
    rows = als.rows(found.contents)
    shape, known = (found.n_users, len(als.keys)), rows >= 0
    matrices = [
        csr_matrix((np.ones(part.sum(), np.float32), (found.users[part], rows[part])), shape)
        for part in (~test & known, test & known)
    ]
    order = np.argsort(found.users[~test], kind="stable")
    train = found.take(~test).take(order)
    ones = np.ones(len(train), np.float32)
    did = Feedback.of(train.users, train.contents, train.kinds, ones, np.bincount(train.users, minlength=shape[0]))
    with threadpool_limits(1, "blas"):
        theirs = AlternatingLeastSquares(
            params.factors,
            regularization=params.regularization,
            iterations=params.iterations,
            use_cg=False,
            random_state=1,
        )
        theirs.fit(matrices[0], show_progress=False)
        own = AlternatingLeastSquares(params.factors, num_threads=1)
        own.user_factors, own.item_factors = als.users(did).astype(np.float32), als.factors
        told = []
        for name, model in (("folded in here", own), ("`implicit`", theirs)):
            figures = ranking_metrics_at_k(model, *matrices, K=10, show_progress=False, num_threads=1)
            told.append((name, float(figures["precision"]), float(figures["ndcg"])))
    return told


def per_call_ms(call: Callable[[], object]) -> float:
    """The median CPU time of a call."""
    taken = []
    for _ in range(TIMES):
        began = time.process_time()
        call()
        taken.append(1000 * (time.process_time() - began))
    return float(np.median(taken[5:]))


class Shelf:
    """An engine's pipeline over the films, in memory."""

    def __init__(self, ratings: Ratings, als: Als, share: int, cached: bool) -> None:
        text = MESH.format(share=share, rest=100 - share, cache="cache: {max_age: 10m}" if cached else "")
        self.bench = Bench(text)
        films = [(item, ratings.films[item].genres if item in ratings.films else ()) for item in ratings.items]
        self.keys = [self.bench.content(SERVICE, item, "|".join(genres)) for item, genres in films]
        keys = np.array(self.keys, np.uint64)
        blend = Blend(BlendParams()).standing_on(als)
        popular = PopularContents(
            keys[:100], np.full(100, hashing.service_key(SERVICE)), np.linspace(1, 0, 100).astype(np.float32)
        )
        loaded = {
            model_name("blend", {}): LoadedModel(blend, 1),
            model_name("als", als.params.model_dump(mode="json")): LoadedModel(als, 1),
            FALLBACK: LoadedModel(Popularity(), 1),
        }
        self.models = FixedModels(loaded, popular)
        rng = np.random.default_rng(1)
        self.users = [
            self.bench.user(
                f"user{n}",
                {"films/all": []},
                reactions=[("click", SERVICE, ratings.items[at], 60.0) for at in rng.integers(0, len(films), 20)],
            )
            for n in range(USERS)
        ]
        self.pipeline = self.bench.pipeline(self.models)
        if cached:
            for (key, value), user in zip(self._entries(), self.users, strict=False):
                assert user in key
                self.bench.values[user]["ranked"] = value

    def _entries(self) -> Iterator[tuple[str, bytes]]:
        for user in self.users:
            (answered,) = asyncio.run(self.pipeline.run([self.bench.group([user], 10)], BenchReads(self.bench)))
            yield from ranked.entries(answered.slate, {}, NOW_S)

    def ms(self) -> float:
        """CPU for a list of ten, in a batch of them."""
        group, reads = self.bench.group(self.users, 10), BenchReads(self.bench)
        loop = asyncio.new_event_loop()
        try:
            return per_call_ms(lambda: loop.run_until_complete(self.pipeline.run([group], reads))) / USERS
        finally:
            loop.close()


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("benchmarks/shelf.md"))
    parser.add_argument("--served", action=argparse.BooleanOptionalAction, default=True, help="response times, too")
    arguments = parser.parse_args()
    report, served = arguments.report, arguments.served
    configure_logging("benchmark", level="warning")
    ratings, params = movielens(cache.folder()), AlsParams()
    found = interactions(ratings)
    lines = [
        "# A cinema's shelf: taste, blend, cache",
        "",
        "Made by `make bench-shelf`, on MovieLens 100k, one core.",
        "",
    ]
    lines += [
        "## Taste",
        "",
        "A random fifth held out, f = 64; goals: P@10 ≥ .351, nDCG@10 ≥ .356, as `implicit` ± 1 %.",
        "",
    ]
    lines += ["| rows of users | P@10 | nDCG@10 |", "|---|---|---|"]
    lines += [f"| {name} | {precision:.4f} | {ndcg:.4f} |" for name, precision, ndcg in ranking(found, params)]
    als, replayed = replay(params, found, 7 * 86_400.0, steps=6000)
    best = replayed.best
    lines += [
        "",
        "## Blend",
        "",
        f"The quarter of users who came last, replayed in time order; k = {replayed.ks[best]:g} by `--tune k`.",
        "",
    ]
    lines += ["Mean gain (1 / log2(1 + rank), within ten) of what the user liked next, out of all films:", ""]
    lines += ["| feedback before | steps | popular | personal | blend |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {n} | {p:.4f} | {q:.4f} | {b:.4f} |" for name, n, p, q, b in replayed.table(best)]
    folded = {n: per_call_ms(lambda n=n: als.users(_some(als, n))) for n in (1, 32)}
    lines += [
        "",
        "## Speed",
        "",
        f"Fold-in of 30 contents, f = 64: {folded[1]:.2f} ms for one user, {folded[32] / 32:.3f} ms a user of 32.",
        "",
    ]
    lines += [
        "CPU of the engine's pipeline for ten of 200 films (als, popularity; batches of 32), by share on the blend:",
        "",
    ]
    lines += ["| share on the blend | without cache | with it (all hits) |", "|---|---|---|"]
    for share in SHARES:
        without, cached = (Shelf(ratings, als, share, each).ms() for each in (False, True))
        lines.append(f"| {share} % | {without:.3f} ms | {cached:.3f} ms |")
    if served:
        found = asyncio.run(shelf_served.measure(ratings, als))
        shelf_served.draw(found, report.with_suffix(".svg"))
        load = f"Load of the machine's {os.cpu_count()} cores meanwhile: about {os.getloadavg()[1]:.0f}."
        lines += [
            "",
            *RESPONSE,
            load,
            "",
            *shelf_served.table(found),
            "",
            f"![response time by share]({report.with_suffix('.svg').name})",
        ]
    report.write_text("\n".join(lines) + "\n")
    print(report.read_text())


def _some(als: Als, n: int) -> Feedback:
    rng: NDArray[np.int64] = np.random.default_rng(2).integers(0, len(als.keys), 30 * n)
    owners = np.repeat(np.arange(n), 30)
    return Feedback.of(owners, als.keys[rng], np.full(30 * n, CLICK), np.ones(30 * n, np.float32), np.full(n, 30))


if __name__ == "__main__":
    main()
