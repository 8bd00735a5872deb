"""What a fault is given: the world, the dice, and where to write down what it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from banditmesh.torture.evidence import Evidence
from banditmesh.torture.oracle import SILENCE, Finding
from banditmesh.torture.supervisor import Replica
from banditmesh.torture.traffic import Traffic
from banditmesh.torture.world import World

ShapeName = Literal["plain", "linked", "replicated", "cluster", "small disks"]
NEEDED_BY_SELECTS: Final = ("crs_engine", "tracker")
"""Of these one replica answers while the other is down; both at once are an outage that clients must see."""


@dataclass(frozen=True)
class Happened:
    """A fault that was injected. ``at_s``: since the run's beginning; ``at``: seconds since 1970."""

    at_s: float
    at: float
    round: str
    what: str


@dataclass
class Chronicle:
    """Everything that was done to the mesh, in order."""

    began: float = field(default_factory=time.time)
    happened: list[Happened] = field(default_factory=list)
    kills: int = 0
    round: str = ""

    def note(self, what: str) -> None:
        """Write it down."""
        now = time.time()
        self.happened.append(Happened(now - self.began, now, self.round, what))


@dataclass
class Scene:
    """See the module.

    Attributes:
        declared: Deviations that the documentation declares for what was done in this round, in words.
        findings: What a fault has found by itself.
        refusals_declared: Events may be refused in this round, and it is said why.
        loses_the_log: What stood in the topics is gone.
        half_lost: Impressions whose reactions may have stood there: Redis has kept them, and no topic says so.
    """

    world: World
    rng: np.random.Generator
    chronicle: Chronicle
    evidence: Evidence
    traffic: Traffic
    declared: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    refusals_declared: bool = False
    loses_the_log: bool = False
    half_lost: set[bytes] = field(default_factory=set)
    log_sizes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str) -> None:
        """Write down what is done."""
        self.chronicle.note(what)

    async def sleep(self, least_s: float, most_s: float | None = None) -> None:
        """Let traffic go on for a while, drawn by the dice."""
        await asyncio.sleep(least_s if most_s is None else float(self.rng.uniform(least_s, most_s)))

    async def kill(self, replica: Replica) -> None:
        """SIGKILL; it is started again at once."""
        self.note(f"SIGKILL {replica.name}")
        self.chronicle.kills += 1
        await self.world.supervisor.kill(replica)

    async def kill_one(self) -> None:
        """SIGKILL any of the five that may die now."""
        everybody = self.world.supervisor.replicas
        may = [each for each in everybody if each.wanted and not each.stopped and self._may_die(each)]
        services = sorted({each.service for each in may})
        if services:
            service = str(self.rng.choice(services))
            of_it = [each for each in may if each.service == service]
            await self.kill(of_it[int(self.rng.integers(len(of_it)))])

    def _may_die(self, replica: Replica) -> bool:
        if replica.service not in NEEDED_BY_SELECTS:
            return True
        return any(each.ready and each is not replica for each in self.world.supervisor.of(replica.service))

    def must_have_said(self, who: Sequence[str], words: str, loss: str) -> None:
        """A loss must be said: among what replicas of one of these services have logged since the round began."""
        for replica in [each for service in who for each in self.world.supervisor.of(service)]:
            if words in self.world.log_of(replica.name)[self.log_sizes.get(replica.name, 0) :]:
                return
        names = " or ".join(who)
        self.findings.append(Finding(SILENCE, names, f"{loss}, and no {names} has logged {words!r}"))


Strike = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One way to go wrong.

    Attributes:
        name: In reports and on the command line.
        number: Of the kind, 1 to 10, as docs/operations.md counts them.
        shape: What servers it needs.
        strike: Does it, and mends it again. Traffic goes on meanwhile.
        mixes: Whether it may happen beside others in the long run.
    """

    name: str
    number: int
    shape: ShapeName
    strike: Strike
    mixes: bool = True

    @property
    def what(self) -> str:
        """In words: the first line of the docstring."""
        return (self.strike.__doc__ or "").strip().partition("\n")[0]
