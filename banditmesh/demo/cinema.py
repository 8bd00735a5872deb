"""A cinema's shelf, on real ratings: newcomers are shown ranked lists, by popularity and by a blend that goes over to
their taste, through the real services.

Those who came first to MovieLens are the past: taste is fitted on what they liked, and popularity counted. The others
come as newcomers, each several times; at each visit a list of ten, a click on what they are known to have liked, and
the target action on what they liked most.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from banditmesh.bandits import hashing
from banditmesh.bandits.als import Als, AlsParams
from banditmesh.bandits.batch import Examples as Batch
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.policy import Policy
from banditmesh.bandits.registry import build
from banditmesh.client import ClientLimits, MeshClient, click, shown, target
from banditmesh.demo.imports import import_file
from banditmesh.demo.movielens import Ratings, movielens, read_ratings
from banditmesh.demo.outcome import ExamplesReader
from banditmesh.demo.report import Examples, delivery
from banditmesh.demo.stage import films, started
from banditmesh.demo.target import Target, local_target
from banditmesh.demo.visits import CLICK_FROM, DEADLINE_S, Truth, in_order
from banditmesh.fit.als import fit
from banditmesh.fit.interactions import Interactions
from banditmesh.fit.save import publish
from banditmesh.local import cache
from banditmesh.local.stack import LocalMesh
from banditmesh.output import output
from banditmesh.runtime.mesh import Mesh, load_mesh
from banditmesh.runtime.store import open_store
from banditmesh.selection import Nothing

PLACEMENT: Final = "shelf"
SERVICE: Final = "films"
MESH: Final = Path(__file__).with_name("cinema.yaml")
BLEND, POPULAR = "blend", "popular"
LIST: Final = 10
WATCH_FROM: Final = 5.0
"""Films of this rating are watched as well as clicked: the target action, which ends what is cached of a user."""
NEWCOMERS: Final = 0.3
MOST_OF_A_GENRE: Final = 5
VISITS_AT_ONCE: Final = 32
SETTLE_TIMEOUT_S: Final = 45.0
_SHOWN_EACH: Final = 40
"""Impressions of each film that the counters begin with."""
BUCKETS: Final = (0, 1, 3, 6, 11, 21)


@dataclass(frozen=True)
class Options:
    """What the command line says. ``visits``: of each newcomer."""

    folder: Path
    visits: int = 6
    ratings: Path | None = None
    plot: Path = Path("cinema-report.png")
    json: Path | None = None


@dataclass
class Seen:
    """What the visitors saw.

    Attributes:
        acknowledged: Variant of each impression that was acknowledged, by its id.
        clicks: By variant and user: clicks and films shown at each visit.
        by_feedback: By variant and bucket of clicks before the visit: clicks, films shown.
        broken: Lists that have more of a genre than the rule allows.
    """

    acknowledged: dict[bytes, str] = field(default_factory=dict)
    clicks: dict[str, dict[str, list[tuple[int, int]]]] = field(default_factory=lambda: defaultdict(dict))
    by_feedback: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    given: Counter[str] = field(default_factory=Counter)
    lists: int = 0
    broken: int = 0
    empty: int = 0

    def rate(self, variant: str) -> tuple[float, float, int]:
        """The mean over users of clicks per film shown, its standard error, and the users."""
        per_user = [
            sum(clicked for clicked, _ in own) / max(sum(films for _, films in own), 1)
            for own in self.clicks[variant].values()
        ]
        if len(per_user) < 2:
            return 0.0, 0.0, len(per_user)
        return float(np.mean(per_user)), float(np.std(per_user, ddof=1) / len(per_user) ** 0.5), len(per_user)

    def __rich__(self) -> RenderableType:
        table = Table("variant", "people", "clicks per film shown", *map(_bucket, range(len(BUCKETS))))
        for variant in (BLEND, POPULAR):
            mean, _, users = self.rate(variant)
            cells = [self.by_feedback[variant, bucket] for bucket in range(len(BUCKETS))]
            table.add_row(variant, str(users), f"{mean:.2%}", *(f"{one / of:.1%}" if of else "" for one, of in cells))
        table.caption = f"{self.lists:,} lists; on the right by the clicks that the user had given before"
        return table


def run(options: Options, console: Console) -> bool:
    """Run the demo; return whether it kept its promises.

    Raises:
        NoRatings, DidNotStart, ImportFailed, MeshError: As `banditmesh.demo.run.run` does.
    """
    began = time.monotonic()
    ratings = read_ratings(options.ratings) if options.ratings else movielens(cache.folder())
    console.print(f"[bold]{len(ratings):,} ratings, {len(ratings.users):,} people, {len(ratings.items):,} films[/]")
    console.print(ratings.origin, style="dim", highlight=False)
    new = newcomers(ratings)
    past = ~new[ratings.user]
    seen, examples = Seen(), Examples()

    def prepare(config: Path) -> None:
        asyncio.run(_prepare(ratings, past, load_mesh(config), (options.folder / "store").as_uri()))
        likes = int((past & (ratings.rating >= CLICK_FROM)).sum())
        console.print(f"Taste was fitted on {likes:,} likes of those who came first.")

    provider = films(options.ratings)
    with started(options.folder, MESH, provider, console, embedded_s3=False, prepare=prepare) as mesh:
        cached = asyncio.run(_visit(options, ratings, new, mesh, seen, examples, console))
    draw(seen, options.plot)
    good = _verdict(console, seen, examples, cached, options.json)
    console.print(f"The plot: {options.plot}. It took {time.monotonic() - began:.0f} s.", highlight=False, markup=False)
    return good


def newcomers(ratings: Ratings) -> NDArray[np.bool_]:
    """``bool[n_users]``: those whose first rating came last."""
    first = np.full(len(ratings.users), len(ratings))
    np.minimum.at(first, ratings.user, np.arange(len(ratings)))
    late: NDArray[np.bool_] = first > np.quantile(first, 1 - NEWCOMERS)
    return late


async def _prepare(ratings: Ratings, past: NDArray[np.bool_], mesh: Mesh, store_url: str) -> None:
    """Publish the fit and counters that begin with the past: what jobs and learner would have left."""
    liked = past & (ratings.rating >= CLICK_FROM)
    rows = zip(ratings.user[liked].tolist(), ratings.item[liked].tolist(), strict=True)
    found = Interactions.of(
        (ratings.users[user], SERVICE, ratings.items[item], "click", 1.0, float(at))
        for at, (user, item) in enumerate(rows)
    )
    counted = _counted(ratings, liked, len(set(ratings.user[past].tolist())))
    store, now_ms = open_store(store_url), int(time.time() * 1000)
    try:
        for model in mesh.models().values():
            policy: Policy
            if model.policy == Als.name:
                policy = await asyncio.to_thread(fit, AlsParams.model_validate(model.params), found)
            else:
                policy = build(model.policy, model.params)
                policy.learn(counted)
            await publish(store, PLACEMENT, policy, len(found), now_ms=now_ms)
    finally:
        await store.close()


def _counted(ratings: Ratings, liked: NDArray[np.bool_], people: int) -> Batch:
    """As if each film had been shown so often, and clicked by the share of people who liked it."""
    likes = np.bincount(ratings.item[liked], minlength=len(ratings.items))
    clicked = np.round(_SHOWN_EACH * likes / people).astype(np.int64)
    keys = np.array([hashing.content_key(SERVICE, item) for item in ratings.items], np.uint64)
    rewards = (np.arange(_SHOWN_EACH)[None] < clicked[:, None]).astype(np.float32).ravel()
    contents, n = np.repeat(keys, _SHOWN_EACH), len(keys) * _SHOWN_EACH
    services = np.full(n, hashing.service_key(SERVICE), np.uint64)
    names = [(SERVICE, item) for item in ratings.items for _ in range(_SHOWN_EACH)]
    times = np.full(n, time.time())
    return Batch(
        contents, services, services, SparseRows.empty(n), rewards, np.ones(n, np.float32), times, rewards > 0, names
    )


async def _visit(
    options: Options,
    ratings: Ratings,
    new: NDArray[np.bool_],
    mesh: LocalMesh,
    seen: Seen,
    examples: Examples,
    console: Console,
) -> Mapping[str, float]:
    mesh_target = local_target(mesh)
    await _import(mesh_target, options.folder / "teams", ratings)
    reader = ExamplesReader(mesh_target.kafka, "examples", examples, PLACEMENT)
    await reader.start()
    reading = asyncio.create_task(reader.keep_reading())
    people = [ratings.users[user] for user in np.flatnonzero(new).tolist()]
    truth = Truth.of(ratings)
    try:
        async with mesh_target.client(ClientLimits()) as client:
            with Live(seen, console=console, refresh_per_second=4, transient=True):
                await in_order(
                    people * options.visits,
                    lambda person: _one(client, person, truth, ratings, seen),
                    at_once=VISITS_AT_ONCE,
                )
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await reader.read_until_settled(seen.acknowledged, SETTLE_TIMEOUT_S)
        return await asyncio.to_thread(_looked_up, mesh.services["crs_engine"].metrics_url)
    finally:
        reading.cancel()
        await reader.stop()


async def _import(target: Target, folder: Path, ratings: Ratings) -> None:
    """Let the importer know every film: a mapping of films to nobody, a few at a time."""
    path = await asyncio.to_thread(_write_catalog, folder, ratings)
    await import_file(target, path, SERVICE, "catalog", version=f"{time.time():.0f}")


def _write_catalog(folder: Path, ratings: Ratings) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "films-catalog.jsonl"
    with path.open("w") as file:
        for start in range(0, len(ratings.items), 50):
            row = {"user_id": f"nobody-{start}", "contents": ratings.items[start : start + 50]}
            file.write(json.dumps(row) + "\n")
    return path


async def _one(client: MeshClient, person: str, truth: Truth, ratings: Ratings, seen: Seen) -> None:
    """One visit: a list, what of it is seen, and clicks on what the person is known to have liked."""
    answer = await client.recommend(PLACEMENT, person, count=LIST, deadline_s=DEADLINE_S)
    if isinstance(answer, Nothing):
        seen.empty += 1
        return
    liked = [each for each in answer if truth.reaction(person, each.content_id) == "click"]
    watched = [each for each in liked if truth.ratings[person, each.content_id] >= WATCH_FROM]
    events = [*map(shown, answer), *map(click, liked), *(target(each, "watch") for each in watched)]
    for refused in await client.track(events, deadline_s=DEADLINE_S):
        if refused is not None:
            raise refused
    variant, before = answer[0].variant, seen.given[person]
    seen.acknowledged |= {each.impression_id: variant for each in answer}
    seen.clicks[variant].setdefault(person, []).append((len(liked), len(answer)))
    bucket = seen.by_feedback[variant, int(np.searchsorted(BUCKETS, before, "right")) - 1]
    bucket[0], bucket[1] = bucket[0] + len(liked), bucket[1] + len(answer)
    seen.given[person] += len(liked)
    seen.lists += 1
    films = [ratings.films.get(each.content_id) for each in answer]
    genres = Counter(genre for film in films if film is not None for genre in film.genres)
    seen.broken += max(genres.values(), default=0) > MOST_OF_A_GENRE


def _looked_up(url: str) -> dict[str, float]:
    """How many users the engine looked up in its cache, by result."""
    found: dict[str, float] = {}
    with urllib.request.urlopen(url, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("banditmesh_engine_cache_total{"):
                labels, _, value = line.rpartition(" ")
                result = labels.partition('result="')[2].partition('"')[0]
                found[result] = found.get(result, 0.0) + float(value)
    return found


def _bucket(at: int) -> str:
    first = BUCKETS[at]
    if at + 1 == len(BUCKETS):
        return f"{first}+"
    last = BUCKETS[at + 1] - 1
    return str(first) if last == first else f"{first}-{last}"


def _verdict(console: Console, seen: Seen, examples: Examples, cached: Mapping[str, float], path: Path | None) -> bool:
    """Print the end of the story; return whether all that was promised came true."""
    console.print(seen)
    (blend, blend_error, _), (popular, popular_error, _) = seen.rate(BLEND), seen.rate(POPULAR)
    width = NormalDist().inv_cdf(0.975) * (blend_error**2 + popular_error**2) ** 0.5
    low, high = blend - popular - width, blend - popular + width
    delivered = delivery(seen.acknowledged, examples.copies)
    asked, hits = sum(cached.values()), cached.get("hit", 0.0)
    promises = [
        (
            low > 0,
            f"clicks per film: blend − popular = {blend - popular:+.4f}, 95 % interval [{low:+.4f}, {high:+.4f}]",
        ),
        (
            delivered.exact,
            f"{delivered.acknowledged:,} impressions were acknowledged, {delivered.once:,} came out as exactly one "
            f"example; {delivered.missing:,} missing, {delivered.duplicated:,} twice",
        ),
        (
            not seen.broken and seen.lists > 0,
            f"{seen.lists - seen.broken:,} of {seen.lists:,} lists have at most {MOST_OF_A_GENRE} films of a genre",
        ),
        (hits > 0, f"the cache answered {hits:,.0f} of {asked:,.0f} lists ({hits / max(asked, 1):.0%})"),
    ]
    for good, text in promises:
        console.print(("[green]✔[/] " if good else "[red]✘[/] ") + text, highlight=False)
    if path is not None:
        found: dict[str, Any] = {"blend": blend, "popular": popular, "interval": [low, high], "cache": dict(cached)}
        path.write_text(json.dumps(found | {"good": all(good for good, _ in promises)}, indent=2))
    return all(good for good, _ in promises)


def draw(seen: Seen, path: Path) -> None:
    """Both variants by the feedback that users had given, as a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for variant in (BLEND, POPULAR):
        cells: Sequence[list[int]] = [seen.by_feedback[variant, at] for at in range(len(BUCKETS))]
        there = [at for at, (_, films) in enumerate(cells) if films]
        axes.plot(
            [_bucket(at) for at in there], [cells[at][0] / cells[at][1] for at in there], marker="o", label=variant
        )
    axes.set_xlabel("clicks that the user had given before")
    axes.set_ylabel("clicks per film shown")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    with output(path, "plot") as file:
        figure.savefig(file, format="png", dpi=120)
    pyplot.close(figure)
