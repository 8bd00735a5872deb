"""``python -m benchmarks.news``: replay a day of a simulated town in time order; see banditmesh/demo/news_world.py.

Every impression shows a reader 20 live articles that were drawn evenly, as a log for off-line evaluation should; each
method ranks them before it learns what was clicked. nDCG@10 is that of MIND's protocol (an impression's list with its
clicks); the click rate is the true probability, which a simulation knows, that the method's first article is clicked.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import numpy as np  # noqa: E402

from banditmesh.demo.news_world import DIMENSIONS, NewsWorld, Rates  # noqa: E402
from banditmesh.retrieval.density import DensityParams  # noqa: E402
from benchmarks.news.methods import Cosine, Density, Histories, ItemKnn, Method, Popularity  # noqa: E402

SHOWN = 20
WARM_UP = 0.15
"""Share of the day whose impressions are learned from and not counted."""


def replay(seed: int, impressions: int) -> dict[str, tuple[float, float, float]]:
    """nDCG@10, click rate and click rate on breaking news hours, by method."""
    rates = Rates()
    world = NewsWorld.make(rates, seed)
    rng = np.random.default_rng(seed + 1000)
    histories = Histories(world)
    n = rates.articles
    params = DensityParams(DIMENSIONS, 256, 0.5, 3600.0)
    methods: dict[str, Method] = {
        "density": Density(params, histories),
        "popularity": Popularity(n),
        "decayed popularity (1 h)": Popularity(n, 3600.0),
        "cosine to the user vector": Cosine(histories),
        "item-kNN": ItemKnn(n, histories),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in [*methods, "chance", "truth"]}
    for at_s in np.sort(rng.uniform(0, rates.length_s, impressions)).tolist():
        reader = int(rng.integers(rates.readers))
        alive = world.alive(at_s)
        articles = rng.choice(alive, min(SHOWN, len(alive)), replace=False)
        truth = world.clicks(reader, articles, at_s)
        clicked = rng.random(len(articles)) < truth
        if at_s > WARM_UP * rates.length_s and clicked.any():
            for name, method in methods.items():
                scores = method.score(reader, articles, at_s) + 1e-9 * rng.random(len(articles))
                found[name].append((ndcg(scores, clicked), float(truth[scores.argmax()])))
            found["chance"].append((ndcg(rng.random(len(articles)), clicked), float(truth.mean())))
            found["truth"].append((ndcg(truth, clicked), float(truth.max())))
        for method in methods.values():
            method.learn(reader, articles, clicked, at_s)
        for article in articles[clicked].tolist():
            histories.add(reader, article, at_s)
    return {name: (*np.mean(values, axis=0).tolist(), float(len(values))) for name, values in found.items()}


def ndcg(scores: np.ndarray, clicked: np.ndarray) -> float:  # type: ignore[type-arg]
    """nDCG@10 with gains of 0 and 1 (Järvelin & Kekäläinen 2002)."""
    discounts = 1 / np.log2(np.arange(2, 12))
    gains = clicked[np.argsort(-scores)][:10]
    best = discounts[: min(int(clicked.sum()), 10)].sum()
    return float((gains * discounts[: len(gains)]).sum() / best)


def main() -> int:
    """Print the table; 1 when density is not the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=30_000, help="of each day (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="days (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="write a page of the figures")
    arguments = parser.parse_args()
    began_s = time.perf_counter()
    days = []
    for seed in range(arguments.seeds):
        days.append(replay(seed, arguments.impressions))
        print(f"day {seed + 1} of {arguments.seeds}, {time.perf_counter() - began_s:.0f} s", flush=True)
    names = list(days[0])
    figures = {name: np.array([day[name][:2] for day in days]) for name in names}
    rows = ["| method | nDCG@10 | click rate of the first article |", "|---|---|---|"]
    for name in names:
        cells = [
            f"{mean:.4f} ± {deviation:.4f}"
            for mean, deviation in zip(figures[name].mean(0), figures[name].std(0), strict=True)
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    others = [name for name in names if name not in ("density", "truth")]
    best = all((figures["density"] > figures[name]).all() for name in others)
    verdict = (
        "Density is better than each of them, on every day, by both." if best else "Density is NOT better than each."
    )
    print("\n".join(rows))
    print(verdict)
    if arguments.report:
        arguments.report.write_text(
            report(rows, verdict, arguments.impressions, arguments.seeds, days[0]["density"][2])
        )
    return 0 if best else 1


def report(rows: list[str], verdict: str, impressions: int, seeds: int, counted: float) -> str:
    """The page."""
    rates = Rates()
    return f"""# What near users click, against what all click and what the words say

`make bench-news`. A public news log with clicks (MIND) cannot be passed on inside a package, and none of the package
lists that were searched has one; `banditmesh convert mind` reads it where you have it. So this is a simulation whose
truth is known, `banditmesh/demo/news_world.py`: {rates.articles} articles and {rates.readers} readers on a day, an
article's appeal halves in about {rates.life_s / 3600:g} h, that of {rates.breaking} breaking news in
{rates.breaking_life_s / 60:g} min. An article's vector tells its audience only about, that of breaking news not at all.

{impressions:,} impressions a day of {SHOWN} articles that were drawn evenly, replayed in time order: every method ranks
an impression before it learns from it. The first {WARM_UP:.0%} of a day are not counted, nor impressions without a
click, which have no nDCG: about {counted:,.0f} a day are. Mean ± deviation over {seeds} days.

{chr(10).join(rows)}

{verdict} It is what the engine serves (`DensitySums`, deltas every 5 s, `DensityTable`), with 256 features, σ = 0.5, a
half-life of 1 h and a smoothing of 10 impressions. *chance* and *truth* (ranking by the true probabilities) are the
ends of the scale.

What it does not say: how large the gain is on your readers. The town was made so that its clicks have neighbours; where
a log of yours has none, density falls back to decayed popularity, and no further.
"""


if __name__ == "__main__":
    raise SystemExit(main())
