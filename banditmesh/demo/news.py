"""The news demo from beginning to end: a town reads news for a minute or two, and half of it gets what its neighbours
click, the other half what is popular."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live

from banditmesh.client import ClientLimits, MeshClient, click, shown
from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.demo.news_delays import Delays, another_engine, watch
from banditmesh.demo.news_evening import read_the_evening_paper
from banditmesh.demo.news_report import NewsTally, NewsView, Seen, draw, verdict
from banditmesh.demo.news_world import NewsWorld, day_of
from banditmesh.demo.outcome import ExamplesReader
from banditmesh.demo.report import Examples
from banditmesh.demo.stage import started
from banditmesh.demo.target import Target, local_target
from banditmesh.demo.visits import in_order
from banditmesh.local.service import Process
from banditmesh.local.stack import LocalMesh
from banditmesh.selection import Nothing

PLACEMENT, SERVICE = "feed", "news"
MESH = Path(__file__).with_name("news_mesh.yaml")
LIST = 4
"""Articles on a screen."""
AT_ONCE = 48
DEADLINE_S = 30.0
SETTLE_TIMEOUT_S = 60.0
BEFORE_S = 2.0
"""Between the evening's end and the town's midnight: what is out by then is imported."""
_PUBLISH_EVERY_S = 0.5


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        folder: Where the mesh keeps everything.
        length_s: How long the town's day is.
        plot: Where to draw.
        seed: Of the town.
    """

    folder: Path
    length_s: float
    plot: Path
    seed: int

    @property
    def began(self) -> Path:
        """The file that tells the Data Provider when the town's midnight was."""
        return (self.folder / "began").absolute()


@dataclass
class Day:
    """What happens in the town.

    Attributes:
        world: The truth.
        began_s: Its midnight, in seconds since the Unix epoch.
    """

    world: NewsWorld
    began_s: float
    tally: NewsTally = field(default_factory=NewsTally)
    examples: Examples = field(default_factory=Examples)
    delays: Delays = field(default_factory=Delays)

    @property
    def now_s(self) -> float:
        """The town's time."""
        return time.time() - self.began_s


def run(options: Options, console: Console) -> bool:
    """Run the demo; return whether it kept its promises. Raises DidNotStart and MeshError."""
    began = time.monotonic()
    world = NewsWorld.make(day_of(options.length_s), options.seed)
    console.print(
        f"[bold]{len(world.born_s) - world.yesterday} articles, {len(world.tastes)} readers, "
        f"{int(world.breaking.sum())} of the articles breaking news[/]: a simulation whose truth is known"
    )
    provider = ["banditmesh.demo.news_provider", "--seed", str(options.seed)]
    provider += ["--length", str(options.length_s), "--began", str(options.began)]
    with started(options.folder, MESH, provider, console) as mesh, another_engine(mesh) as second:
        options.began.write_text(repr(time.time()))
        console.print(
            f"All healthy after {time.monotonic() - began:.0f} s. Logs: {mesh.logs}", highlight=False, markup=False
        )
        day = asyncio.run(_lived(options, world, mesh, second, console))
    draw(day.world, day.tally, options.plot)
    good = verdict(console, day.world, day.tally, day.examples, day.delays)
    console.print(f"The plot: {options.plot}. It took {time.monotonic() - began:.0f} s.", highlight=False, markup=False)
    return good


async def _lived(options: Options, world: NewsWorld, mesh: LocalMesh, second: Process, console: Console) -> Day:
    target = local_target(mesh)
    async with target.client(ClientLimits()) as client:
        clicks = await read_the_evening_paper(world, target, client, SERVICE, options.folder / "evening", options.seed)
    console.print(f"The evening before, readers opened {clicks:,} articles.")
    day = Day(world, time.time() + BEFORE_S)
    options.began.write_text(repr(day.began_s))
    await _live(options, day, mesh, second, target, console)
    return day


async def _live(options: Options, day: Day, mesh: LocalMesh, second: Process, target: Target, console: Console) -> None:
    reader = ExamplesReader(target.kafka, "examples", day.examples, PLACEMENT)
    await reader.start()
    beside = [
        asyncio.create_task(reader.keep_reading()),
        asyncio.create_task(_publish(day, target)),
        asyncio.create_task(watch(day.delays, mesh, PLACEMENT, [mesh.services["crs_engine"], second])),
    ]
    view = NewsView(day.tally, day.examples, day.delays, options.length_s)
    try:
        other = replace(target, engine=second.address)
        async with target.client(ClientLimits()) as client, other.client(ClientLimits()) as another:
            with Live(view, console=console, refresh_per_second=4, transient=True):
                await asyncio.sleep(max(-day.now_s, 0))
                await _visits(options, day, (client, another), beside)
                beside[0].cancel()
                with suppress(asyncio.CancelledError):
                    await beside[0]
                await reader.read_until_settled(day.tally.acknowledged, SETTLE_TIMEOUT_S)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await reader.stop()


async def _visits(options: Options, day: Day, clients: Sequence[MeshClient], beside: list[asyncio.Task[None]]) -> None:
    """Readers come one after the other, as fast as the mesh answers, until the day is over. ``clients``: of an engine
    each; a reader comes now to this one and now to that one."""
    rng = np.random.default_rng(options.seed + 1)

    async def visit(reader: str) -> None:
        number, client = int(reader), clients[day.tally.done % len(clients)]
        screen = await client.recommend(PLACEMENT, f"r{number}", count=LIST, deadline_s=DEADLINE_S)
        day.tally.done += 1
        if isinstance(screen, Nothing):
            day.tally.nothing[screen.reason.name.lower()] += 1
            return
        now_s = day.now_s
        articles = np.array([int(each.content_id) for each in screen])
        truth = day.world.clicks(number, articles, now_s)
        clicked = rng.random(len(articles)) < truth
        events = [shown(each) for each in screen]
        events += [click(each) for each, opened in zip(screen, clicked.tolist(), strict=True) if opened]
        for refused in await client.track(events, deadline_s=DEADLINE_S):
            if refused is not None:
                raise refused
        for each, article, opened, chance in zip(
            screen, articles.tolist(), clicked.tolist(), truth.tolist(), strict=True
        ):
            day.tally.acknowledged[each.impression_id] = each.variant
            day.tally.add(Seen(now_s, each.variant, number, article, bool(opened), float(chance), each.logic))

    def readers() -> Iterator[str]:
        while day.now_s < options.length_s and not any(task.done() for task in beside):
            yield str(int(rng.integers(len(day.world.tastes))))

    await in_order(readers(), visit, at_once=AT_ONCE)
    for task in beside:
        if task.done():
            task.result()


async def _publish(day: Day, target: Target) -> None:
    """What a newsroom's system does: tell the importer of each article when it is out."""
    waiting = np.arange(day.world.yesterday, len(day.world.born_s))
    async with target.channel(target.importer) as channel:
        stub = importer_pb2_grpc.ImporterServiceStub(channel)
        while len(waiting):
            now_s = day.now_s
            out = waiting[day.world.born_s[waiting] <= now_s]
            waiting = waiting[len(out) :]
            ids = [str(each) for each in out.tolist() if day.world.gone_s[each] > now_s]
            if ids:
                request = importer_pb2.RefreshContentsRequest(service=SERVICE, content_ids=ids)
                await stub.RefreshContents(request, timeout=DEADLINE_S, metadata=target.metadata)
                day.tally.published.update(dict.fromkeys(map(int, ids), day.now_s))
            await asyncio.sleep(_PUBLISH_EVERY_S)
        await asyncio.Event().wait()
