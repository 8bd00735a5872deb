"""Rounds on worlds: first one for each fault, then all mixed for as long as there is time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np

from banditmesh.local.process import DidNotStart
from banditmesh.runtime.errors import MeshError
from banditmesh.torture import learned
from banditmesh.torture.evidence import Evidence
from banditmesh.torture.faults import FAULTS, disks
from banditmesh.torture.oracle import EVENT, REACTION, SELECT, Finding, judge, not_in_the_log
from banditmesh.torture.reading import TopicsReader
from banditmesh.torture.report import Report, RoundResult
from banditmesh.torture.scene import Fault, Scene, ShapeName, Strike
from banditmesh.torture.traffic import Journal, Traffic
from banditmesh.torture.world import PARTITIONS, Shape, World

WARM_S: Final = 3.0
"""Traffic before and after the fault."""
SETTLE_WITHIN_S: Final = 120.0
LEARNED_WITHIN_S: Final = 90.0
MIXED: Final = "all mixed"
_MIXED_SHAPES: Final[tuple[ShapeName, ...]] = ("plain", "replicated", "linked", "cluster")
_MIXED_S: Final = 75.0
"""Faults of one mixed round, at most."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        folder: Where the worlds keep everything.
        minutes: How long; the rounds come first, the mixed run has the rest.
        seed: Of traffic and of faults.
        faults: Which rounds.
        per_second: Visits.
        replicas: Of each service; None: two.
        rounds: Whether each fault has a round of its own first.
        mixed: Whether there is a mixed run at all.
    """

    folder: Path
    minutes: float
    seed: int = 1
    faults: Sequence[Fault] = FAULTS
    per_second: float = 120.0
    shape: Shape = field(default_factory=Shape)
    rounds: bool = True
    mixed: bool = True


class Torture:
    """A run; ``report`` grows with it, so that what was done before an interruption is there."""

    def __init__(self, options: Options, tell: Tell, done: Callable[[RoundResult], None] = lambda result: None) -> None:
        """``tell``: told what goes on; ``done``: of each round that has ended."""
        self.report = Report(options.seed, options.minutes)
        self._options = options
        self._tell = tell
        self._done = done
        self._deadline = 0.0
        self._acts = 0

    async def run(self) -> None:
        """Do it all. Raises nothing that a round may raise: it is in the report."""
        began = time.monotonic()
        self._deadline = began + 60 * self._options.minutes
        try:
            alone = self._options.faults if self._options.rounds else ()
            for shape, faults in groupby(alone, key=lambda fault: fault.shape):
                await self._act(shape, list(faults))
            shapes = [each for each in _MIXED_SHAPES if any(self._of(each))] if self._options.mixed else []
            turn = 0
            while shapes and self._left_s() > 2 * WARM_S + 10:
                await self._act(shapes[turn % len(shapes)], [], mixed_s=max(self._left_s() / 4, _MIXED_S))
                turn += 1
        except (DidNotStart, MeshError, TimeoutError) as error:
            self.report.broke = f"{type(error).__name__}: {error}"
        finally:
            self.report.seconds = time.monotonic() - began

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()

    def _of(self, shape: ShapeName) -> Iterable[Fault]:
        return (fault for fault in self._options.faults if fault.shape == shape and fault.mixes)

    async def _act(self, shape: ShapeName, faults: Sequence[Fault], mixed_s: float = 0.0) -> None:
        """Rounds on one world."""
        if faults and self._left_s() <= 0:
            self._skip(faults, "no time was left (--minutes)")
            return
        mounted = await asyncio.to_thread(disks.mount, self._options.folder / "disks") if shape == "small disks" else {}
        if shape == "small disks" and not mounted:
            self._skip(faults, "this user may not mount a small file system")
            return
        self._acts += 1
        folder = self._options.folder / f"act-{self._acts}-{shape.replace(' ', '-')}"
        self._tell(f"starting servers and services: {shape}")
        try:
            async with World(folder, self._shape(shape, mounted)) as world:
                await Act(world, self._options, self.report, self._acts, self._tell, self._done).play(
                    faults, list(self._of(shape)), mixed_s, self._left_s
                )
        finally:
            if mounted:
                await asyncio.to_thread(disks.unmount, mounted)

    def _skip(self, faults: Sequence[Fault], why: str) -> None:
        self.report.rounds += [
            RoundResult(each.name, each.what, each.number, each.shape, skipped=why) for each in faults
        ]

    def _shape(self, name: ShapeName, mounted: dict[str, Path]) -> Shape:
        replicas = self._options.shape.replicas
        match name:
            case "plain":
                return Shape(replicas=replicas)
            case "linked":
                return Shape(links=True, replicas=replicas)
            case "replicated":
                return Shape(brokers=3, redis="pair", replicas=replicas)
            case "cluster":
                return Shape(redis="cluster", replicas=replicas)
            case "small disks":
                return Shape(small_disks=mounted, replicas=replicas)


async def _strike(fault: Fault, scene: Scene) -> None:
    """One fault among others; what it needed may have been killed, or not be there yet: the run goes on."""
    try:
        await fault.strike(scene)
    except DidNotStart:
        raise  # without its servers nothing can go on
    except Exception as error:  # of a fault, not of the mesh: that is what the oracle looks at
        scene.note(f"{fault.name} was not done to its end: {type(error).__name__}: {error}")


class Act:
    """Rounds on one world, one after the other."""

    def __init__(
        self,
        world: World,
        options: Options,
        report: Report,
        number: int,
        tell: Tell,
        done: Callable[[RoundResult], None],
    ) -> None:
        self._world = world
        self._options = options
        self._report = report
        self._number = number
        self._tell = tell
        self._done = done
        self._evidence = Evidence()
        self._reader = TopicsReader(world.bootstrap, PARTITIONS, self._evidence)
        self._judged: set[tuple[str, str]] = set()
        self._acknowledged: set[tuple[bytes, tuple[str, str] | None]] = set()
        self._half_lost: set[bytes] = set()
        self._whole = True
        """False once the log was lost: undisturbed learning of it is not possible."""

    async def play(
        self, faults: Sequence[Fault], mixing: Sequence[Fault], mixed_s: float, left_s: Callable[[], float]
    ) -> None:
        """One round a fault, then a mixed one if it has time, then what was learned."""
        last: RoundResult | None = None
        for fault in faults:
            if left_s() <= 0:
                self._report.rounds.append(
                    RoundResult(
                        fault.name, fault.what, fault.number, fault.shape, skipped="no time was left (--minutes)"
                    )
                )
                continue
            if fault.name == "kafka-emptied" and last is not None:
                await self._compare(last)
                last = None
            last = await self._round(fault.name, fault, fault.strike)
        if mixed_s > 0:
            name = f"{MIXED}: {next(iter(mixing)).shape}"
            mixed = Fault(name, 0, next(iter(mixing)).shape, self._mixture(mixing, mixed_s))
            last = await self._round(name, mixed, mixed.strike)
        if last is not None:
            await self._compare(last)

    def _mixture(self, faults: Sequence[Fault], seconds: float) -> Strike:
        async def mixed(scene: Scene) -> None:
            """Whatever these servers can suffer, one after another at random, with kills all the time."""
            deadline = time.monotonic() + seconds

            async def kill_on() -> None:
                while True:
                    await scene.sleep(0.3, 2.2)
                    await scene.kill_one()

            killing = asyncio.create_task(kill_on())
            try:
                while time.monotonic() < deadline:
                    fault = faults[int(scene.rng.integers(len(faults)))]
                    scene.note(f"{fault.name} begins")
                    await _strike(fault, scene)
                    await scene.sleep(0.5, 3.0)
            finally:
                killing.cancel()
                await asyncio.gather(killing, return_exceptions=True)

        return mixed

    async def _round(self, name: str, fault: Fault, strike: Strike) -> RoundResult:
        """Traffic, the fault, and the oracle's word. What was done before an interruption is in the report."""
        world, report = self._world, self._report
        index = len(report.rounds)
        result = RoundResult(name, fault.what, fault.number, fault.shape)
        report.rounds.append(result)
        report.chronicle.round = name
        began, kills = time.monotonic(), report.chronicle.kills
        crashes = {each.name: len(each.ended) for each in world.supervisor.replicas}
        seed = self._options.seed
        rng = np.random.default_rng([seed, index, 1])
        async with world.client() as client:
            traffic = Traffic(client, world.users, world.windows_s, seed * 10_000 + index, self._options.per_second)
            scene = Scene(world, rng, report.chronicle, self._evidence, traffic)
            scene.log_sizes = {each.name: len(world.log_of(each.name)) for each in world.supervisor.replicas}
            telling = asyncio.create_task(self._keep_telling(name, traffic.journal))
            try:
                traffic.start()
                await scene.sleep(WARM_S)
                await strike(scene)
                await scene.sleep(WARM_S)
                await world.until_ready()
                await traffic.stop()
                await self._judge(result, scene, traffic.journal)
            except BaseException:
                await traffic.abandon()
                raise
            finally:
                telling.cancel()
                result.seconds = time.monotonic() - began
                result.kills = report.chronicle.kills - kills
                result.crashes = [
                    f"{each.name}: {how}"
                    for each in world.supervisor.replicas
                    for how in each.ended[crashes.get(each.name, 0) :]
                ]
        self._done(result)
        return result

    async def _judge(self, result: RoundResult, scene: Scene, journal: Journal) -> None:
        before = self._counts()
        if scene.loses_the_log:
            self._forget_the_log()
            before = self._counts()
        self._half_lost |= scene.half_lost
        if not await self._reader.until_settled(SETTLE_WITHIN_S, self._has_all_late_reactions):
            for replica in self._world.supervisor.replicas:
                replica.process.ask_what_it_waits_for()
        evidence = self._evidence
        self._acknowledged |= journal.acknowledged if self._whole else set()
        found = [*self._judged_now(), *not_in_the_log(evidence, self._acknowledged)]
        result.findings += [each for each in found if (each.kind, each.what) not in self._judged]
        self._judged |= {(each.kind, each.what) for each in found}
        result.findings += scene.findings
        result.findings += [Finding(SELECT, f"select {number}", why) for number, why in enumerate(journal.failed)]
        if not scene.refusals_declared:
            result.findings += [Finding(EVENT, why, f"{n} times") for why, n in journal.refused.items()]
        after = self._counts()
        (result.impressions, result.examples, result.reactions, result.late, result.copies, result.dead_letters) = (
            now - then for now, then in zip(after, before, strict=True)
        )
        result.selected, result.empty, result.given_up = journal.selected, journal.empty, journal.given_up
        result.refused, result.origins = dict(journal.refused), dict(journal.origins)
        result.declared = list(dict.fromkeys(scene.declared))

    def _judged_now(self) -> Iterator[Finding]:
        return judge(self._evidence, self._world.rules, self._half_lost)

    def _has_all_late_reactions(self) -> bool:
        """They go out some ticks after they came."""
        return all(each.kind != REACTION for each in self._judged_now())

    def _forget_the_log(self) -> None:
        """Begin anew with what stands in topics that were made anew."""
        self._evidence = Evidence()
        self._reader = TopicsReader(self._world.bootstrap, PARTITIONS, self._evidence)
        self._acknowledged.clear()
        self._whole = False

    def _counts(self) -> tuple[int, ...]:
        evidence = self._evidence
        return (
            len(evidence.shown),
            sum(map(len, evidence.found.values())),
            sum(map(len, evidence.reacted.values())),
            len(evidence.late),
            evidence.copies,
            sum(evidence.letters.values()),
        )

    async def _compare(self, result: RoundResult) -> None:
        """What was learned on this world so far; into the result of its last round."""
        if not self._whole:
            return
        self._tell(f"{result.name}: what was learned, beside an undisturbed learner")
        findings, counts = await learned.compare(self._world, self._evidence, LEARNED_WITHIN_S)
        result.findings += findings
        result.learned = counts

    async def _keep_telling(self, name: str, journal: Journal) -> None:
        chronicle = self._report.chronicle
        while True:
            found = len(self._report.findings)
            last = chronicle.happened[-1].what if chronicle.happened and chronicle.happened[-1].round == name else ""
            self._tell(
                f"{name}: {journal.selected:,} selected, {len(journal.acknowledged):,} events acknowledged, "
                f"{chronicle.kills} kills, {found} found. {last}"
            )
            await asyncio.sleep(0.5)
