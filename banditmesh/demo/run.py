"""The demo from beginning to end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live

from banditmesh.client import ClientLimits
from banditmesh.demo import teams
from banditmesh.demo.imports import import_mappings, import_profiles
from banditmesh.demo.movielens import Ratings, movielens, read_ratings
from banditmesh.demo.outcome import ExamplesReader
from banditmesh.demo.report import Examples, delivery, difference, plot
from banditmesh.demo.stage import films, started
from banditmesh.demo.target import Target, existing_target, local_target
from banditmesh.demo.view import LiveView, verdict
from banditmesh.demo.visits import Tally, Truth, halves, visit_all, visits
from banditmesh.local import cache
from banditmesh.local.stack import LocalMesh

PLACEMENT = "home"
MESH = Path(__file__).with_name("mesh.yaml")
SETTLE_TIMEOUT_S = 60.0
DEFAULT_VISITS = 24_000
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        folder: Where the mesh keeps everything.
        visits: How many visits.
        ratings: Other ratings than MovieLens 100k.
        plot: Where to draw.
        seed: Of the teams' random choices.
        json: Where to write the result for a program to read.
        endpoints: gRPC targets of a mesh that exists, by service; absent: one is started. Such a mesh has the services
            and the placement of the demo's own ``mesh.yaml``, and a Data Provider.
    """

    folder: Path
    visits: int = DEFAULT_VISITS
    ratings: Path | None = None
    plot: Path = Path("demo-report.png")
    seed: int = 1
    json: Path | None = None
    endpoints: Mapping[str, str] | None = None


def run(options: Options, console: Console) -> bool:
    """Run the demo; return whether it kept its promises.

    Raises:
        NoRatings: There are no ratings to run on.
        DidNotStart: A part of the mesh did not start.
        ImportFailed: The importer refused a mapping.
        MeshError: A service refused a visit.
    """
    began = time.monotonic()
    ratings = read_ratings(options.ratings) if options.ratings else movielens(cache.folder())
    console.print(f"[bold]{len(ratings):,} ratings, {len(ratings.users):,} people, {len(ratings.items):,} films[/]")
    console.print(ratings.origin, style="dim", highlight=False)

    tally, examples = Tally(), Examples()
    if options.endpoints is None:
        with started(options.folder, MESH, films(options.ratings), console) as mesh:
            console.print(
                f"All healthy after {time.monotonic() - began:.0f} s. Logs: {mesh.logs}", highlight=False, markup=False
            )
            asyncio.run(_supervised(options, ratings, mesh, tally, examples, console))
    else:
        asyncio.run(_visit(options, ratings, existing_target(options.endpoints), tally, examples, console))
    plot(examples.outcomes, options.plot)
    delivered = delivery(tally.acknowledged, examples.copies)
    differences = {
        "click rate": difference(examples.outcomes, "clicked"),
        "mean reward": difference(examples.outcomes, "reward"),
    }
    if options.json is not None:
        found = {"delivery": asdict(delivered), **{name: asdict(each) for name, each in differences.items()}}
        options.json.write_text(json.dumps(found, indent=2))
    good = verdict(console, delivered, differences, examples, tally)
    console.print(f"The plot: {options.plot}. It took {time.monotonic() - began:.0f} s.", highlight=False, markup=False)
    return good


async def _supervised(
    options: Options, ratings: Ratings, mesh: LocalMesh, tally: Tally, examples: Examples, console: Console
) -> None:
    supervising = asyncio.create_task(_restart_ended(mesh, console))
    try:
        await _visit(options, ratings, local_target(mesh), tally, examples, console)
    finally:
        supervising.cancel()
        with suppress(asyncio.CancelledError):
            await supervising  # if a service did not start again, that is why the visits failed


async def _visit(
    options: Options, ratings: Ratings, target: Target, tally: Tally, examples: Examples, console: Console
) -> None:
    rng = np.random.default_rng(options.seed)
    files = options.folder / "teams"
    run_name = f"{time.time():.0f}"  # versions are imported once, and the folder may be that of an earlier run

    async def teams_run(known: NDArray[np.bool_], version: str) -> None:
        proposals = await asyncio.to_thread(teams.propose, teams.History(ratings, known), rng)
        await import_mappings(
            target,
            files,
            proposals,
            f"{run_name}.{version}",
            lambda what: console.print(f"  {what}", highlight=False),
        )

    known = teams.past(ratings)
    people = visits(ratings, known, options.visits)
    console.print("The service teams' mapping files, by NotifyMapping:")
    await import_profiles(target, files, ratings, run_name)
    await teams_run(known, "1")

    reader = ExamplesReader(target.kafka, "examples", examples, PLACEMENT)
    await reader.start()
    reading = asyncio.create_task(reader.keep_reading())
    live = Live(LiveView(tally, examples, len(people)), console=console, refresh_per_second=4, transient=True)
    try:
        async with target.client(ClientLimits()) as client:
            with live:
                for half, part in enumerate(halves(people)):
                    if half:
                        await teams_run(_known_now(ratings, known, tally), "2")
                    await visit_all(client, PLACEMENT, part, Truth.of(ratings), tally)
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
                await reader.read_until_settled(tally.acknowledged, SETTLE_TIMEOUT_S)
    finally:
        reading.cancel()
        await reader.stop()


async def _restart_ended(mesh: LocalMesh, console: Console) -> None:
    """Do what Kubernetes does in production."""

    def tell(part: str, what: str) -> None:
        if what.startswith("ended"):
            console.print(f"  {part} {what}", style="yellow", highlight=False)

    mesh.progress = tell
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        await asyncio.to_thread(mesh.restart_ended)


def _known_now(ratings: Ratings, past: NDArray[np.bool_], tally: Tally) -> NDArray[np.bool_]:
    """Return what the teams know at half-time: the past, and what people have clicked since."""
    users, items = ratings.users, ratings.items
    pairs = zip(ratings.user.tolist(), ratings.item.tolist(), strict=True)
    clicked = np.fromiter(((users[user], items[item]) in tally.clicked for user, item in pairs), np.bool_, len(ratings))
    return past | clicked
