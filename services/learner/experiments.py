"""Experiments at work: which plan is in force, what the numbers say, and variants that must stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np

from banditmesh.bandits.errors import BanditError
from banditmesh.experiments.era import Era
from banditmesh.experiments.guardrails import Breach, breaches
from banditmesh.experiments.report import Report, Selections, report
from banditmesh.experiments.tally import Tally
from banditmesh.lengths import MAX_NAME_BYTES
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import DataLoss, MeshError, NotFound, Unavailable
from banditmesh.runtime.experiments import digest, plan_of
from banditmesh.runtime.limits import check_text
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.selections import BUCKETS, Counts, read
from banditmesh.runtime.snapshots import BadSnapshot, Snapshots
from banditmesh.runtime.stops import Entry, Stopped, Stops
from banditmesh.runtime.store import Store
from banditmesh.runtime.variants import Experiment
from services.learner.experiment_shard import EXPERIMENT, ExperimentShard
from services.learner.metrics import LearnerMetrics

log = get_logger(__name__)

CHECK_S: Final = 10.0
"""How often plans and guardrails are looked at. With the engines' own look at the store a stop is everywhere within
half a minute."""
SELECTIONS_S: Final = 30.0
"""How often what engines have counted is read again."""
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A report with what belongs to it."""

    report: Report
    experiment: Experiment
    era: Era
    eras: int
    watermark_ms: int
    stopped: Stopped
    unknown: int
    unsettled: int


class Experiments:
    """Of all placements; the shards of this replica are counted here, those of others are read from the store.

    Shards are touched on ``thread`` alone, with ``learning`` held: between two pieces of work there they are whole.
    """

    def __init__(
        self,
        placements: Mapping[str, Placement],
        shards: Mapping[str, ExperimentShard],
        store: Store,
        snapshots: Snapshots,
        learning: asyncio.Lock,
        thread: ThreadPoolExecutor,
        clock: Clock,
        metrics: LearnerMetrics,
        *,
        who: str,
    ) -> None:
        """``who``: what this learner is called where it writes down that it stopped something."""
        self._placements = placements
        self._shards = shards
        self._store = store
        self._stops = Stops(store)
        self._snapshots = snapshots
        self._learning = learning
        self._looking = asyncio.Lock()
        self._thread = thread
        self._clock = clock
        self._metrics = metrics
        self._who = who
        self._stopped = dict.fromkeys(shards, Stopped())
        self._read_at_s = -SELECTIONS_S
        self._selections: Mapping[tuple[str, str], dict[str, Counts]] = {}

    async def begin(self) -> None:
        """Set each shard's plan before it learns; waits as long as the store is away: it knows what is stopped."""
        for placement, shard in self._shards.items():
            while True:
                try:
                    await self._follow(placement, shard)
                    outages.well(f"stops of {placement}")
                    break
                except DataLoss as error:
                    log.error(
                        "stops cannot be read; counting as if there were none", placement=placement, reason=str(error)
                    )
                    await self._on_thread(partial(self._plan, placement, shard))
                    break
                except MeshError as error:
                    outages.failed(f"stops of {placement}", error)
                    await self._clock.sleep(1.0)

    async def watch(self) -> None:
        """For ever: follow plans, look at guardrails."""
        while True:
            await self._clock.sleep(CHECK_S)
            for placement in self._shards:
                try:
                    await self.check(placement)
                    outages.well(f"experiment of {placement}")
                except MeshError as error:
                    # Nothing is stopped, and nothing that is stopped goes on: engines keep what they know.
                    self._metrics.experiment_check_failures.labels(placement).inc()
                    outages.failed(f"experiment of {placement}", error)

    async def check(self, placement: str) -> list[Breach]:
        """Look at one placement; what was stopped now."""
        shard, experiment = self._shards[placement], self._placements[placement].experiment
        await self._follow(placement, shard)
        await self._read_selections()
        found = await self._on_thread(lambda: self._report(placement, shard.tally.eras[-1]))
        self._metrics.experiment_sample_ratio.labels(placement).set(found.sample_ratio.p)
        self._metrics.experiment_unknown.labels(placement).set(shard.tally.unknown)
        margins: dict[str, float] = {
            metric: each.worse_than_control_by for metric, each in experiment.guardrails.items()
        }
        wrong = [each for each in breaches(found, margins) if each.variant not in self._stopped[placement].stopped]
        if wrong:
            now_ms = int(self._clock.now_s() * 1000)
            entries = [
                Entry(each.variant, "stopped", now_ms, f"guardrail {each.metric}, {self._who}", each.because)
                for each in wrong
            ]
            await self._stops.stop(placement, entries)
            for each in wrong:
                self._metrics.experiment_stops.labels(placement, each.variant, each.metric).inc()
                log.error("variant stopped", placement=placement, variant=each.variant, because=each.because)
            await self._follow(placement, shard)
        return wrong

    async def report(self, placement: str, era: int) -> Found:
        """What an era says: 0 the current one, 1 the one before …

        Raises:
            NotFound: there is no such placement, no such era, or nothing was ever counted.
        """
        self._known(placement)
        await self._read_selections()
        shard = self._shards.get(placement)
        if shard is not None:
            if not shard.tally.eras:
                raise Unavailable("the experiment is not loaded yet", retry_after_s=1.0)
            stopped = await self._stops.get(placement)
            return await self._on_thread(lambda: self._found(placement, shard.tally, era, shard.watermark_ms, stopped))
        try:
            pointer = await self._snapshots.pointer(placement, EXPERIMENT)
            if pointer is None:
                raise NotFound("nothing was counted yet", field="placement", value=placement)
            snapshot = await self._snapshots.load(placement, EXPERIMENT, pointer.version)
            tally = Tally.from_tensors(snapshot.tensors)
        except (BadSnapshot, BanditError) as error:
            raise DataLoss(f"the tally of {placement} cannot be read: {error}") from error
        stopped = await self._stops.get(placement)
        return self._found(placement, tally, era, snapshot.manifest.watermark_ms, stopped)

    async def resume(self, placement: str, variant: str, who: str, why: str) -> Entry:
        """Give a variant its users back; the stop that was in force. Raises NotFound."""
        self._known(placement)
        check_text("variant", variant, MAX_NAME_BYTES)
        entry = Entry(variant, "resumed", int(self._clock.now_s() * 1000), who, why)
        was = await self._stops.resume(placement, entry)
        log.warning("variant resumed", placement=placement, variant=variant, who=who, why=why)
        if placement in self._shards:
            await self._follow(placement, self._shards[placement])
        return was

    def _known(self, placement: str) -> None:
        check_text("placement", placement, MAX_NAME_BYTES)
        if placement not in self._placements:
            hint = f"there are: {', '.join(sorted(self._placements))}"
            raise NotFound("no such placement", field="placement", value=placement, hint=hint)

    async def _follow(self, placement: str, shard: ExperimentShard) -> None:
        """Count by what is in force now."""
        async with self._looking:  # a look that began before a resumption and ends after it would undo it
            moved = await self._stops.moved(placement, self._stopped[placement])
            if moved is not None:
                self._stopped[placement] = moved
        if await self._on_thread(partial(self._plan, placement, shard)):
            log.info(
                "another era of the experiment begins",
                placement=placement,
                stopped=sorted(self._stopped[placement].stopped),
            )
        for variant in self._placements[placement].experiment.variants:
            self._metrics.experiment_stopped.labels(placement, variant).set(variant in self._stopped[placement].stopped)

    def _plan(self, placement: str, shard: ExperimentShard) -> bool:
        plan = plan_of(self._placements[placement], self._stopped[placement].stopped)
        return shard.follow(plan, int(self._clock.now_s() * 1000))

    def _report(self, placement: str, era: Era) -> Report:
        counted = self._selections.get((placement, digest(era.plan)))
        return report(
            era,
            None if counted is None else _in_order(counted, era.names),
            planned=self._placements[placement].experiment.planned_impressions,
        )

    async def _read_selections(self) -> None:
        """What engines have counted; what was read last when the store is away."""
        if self._clock.monotonic_s() - self._read_at_s < SELECTIONS_S:
            return
        try:
            self._selections = await read(self._store, self._clock.now_s())
            self._read_at_s = self._clock.monotonic_s()
        except MeshError as error:
            outages.failed("counts of selections", error)
        else:
            outages.well("counts of selections")

    def _found(self, placement: str, tally: Tally, era: int, watermark_ms: int, stopped: Stopped) -> Found:
        if era >= len(tally.eras):
            raise NotFound(f"there are {len(tally.eras)} eras, counted from 0, the current one", field="era", value=era)
        wanted = tally.eras[-1 - era]
        return Found(
            self._report(placement, wanted),
            self._placements[placement].experiment,
            wanted,
            len(tally.eras),
            watermark_ms,
            stopped,
            tally.unknown,
            tally.unsettled,
        )

    async def _on_thread(self, work: Callable[[], T]) -> T:
        async with self._learning:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _in_order(counted: Mapping[str, Counts], names: Sequence[str]) -> Selections:
    """Of the variants in the order of an era."""
    found = np.array([counted.get(name, np.zeros((2, BUCKETS))) for name in names])
    return Selections(found[:, 0], found[:, 1])
