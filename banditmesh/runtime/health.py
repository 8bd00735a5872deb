"""Health that follows the dependencies: ``grpc.health.v1``, for each gRPC service and for the process (``""``).

A service is SERVING iff the server has started and is not stopping, its critical checks pass and its critical
background tasks run. A check that is not critical (Kafka and S3 for the engine) is measured and logged, nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from grpc_health.v1 import health, health_pb2

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.metrics import ProcessMetrics
from banditmesh.runtime.outages import outages

log = get_logger(__name__)

OVERALL = ""
LIVENESS = "liveness"
"""The name for liveness probes: SERVING as long as the process answers, whatever becomes of the servers that it needs.
A restart would not bring those back."""
SETTLE_S = 15.0
SETTLE_EVERY_S = 0.25
FAILED_EVERY_S = 1.0
"""A check that has failed is repeated at least so often, so that what is seldom looked at is not long the last to hear
that its dependency is back."""
Probe = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Check:
    """A named probe of a dependency: returns when it is well, raises when it is not."""

    name: str
    probe: Probe
    interval_s: float = 5.0
    timeout_s: float = 2.0
    critical: bool = True
    services: frozenset[str] = frozenset()
    """Full names of the gRPC services that need it; empty: all of the process."""
    meanwhile: str = ""
    """What the service does while it is not well, for the log."""
    silence_of: str = ""
    """Which dependency is away when the probe gets no answer; empty: the one of this name."""
    where: str = ""
    """Its address, for the log."""


class Health:
    """Runs the checks and keeps the health servicer's answers in step with them."""

    def __init__(self, clock: Clock, metrics: ProcessMetrics) -> None:
        self.servicer = health.aio.HealthServicer()
        self._clock = clock
        self._metrics = metrics
        self._checks: dict[str, Check] = {}
        self._services: set[str] = set()
        self._well: set[str] = set()
        """Checks that have passed once."""
        self._began_s = 0.0
        self._broken: dict[str, frozenset[str]] = {}
        """Critical conditions that do not hold, with the services that they concern (empty: all)."""
        self._loops: list[asyncio.Task[None]] = []
        self._serving = False
        self._held = False

    @property
    def broken(self) -> frozenset[str]:
        """Names of the critical conditions that do not hold now."""
        return frozenset(self._broken)

    def obstacles(self) -> frozenset[str]:
        """Why the process is not ready: the critical conditions that do not hold, and that it starts or stops."""
        return self.broken if self._serving else self.broken | {"starting or stopping"}

    async def start(self, services: Iterable[str], checks: Mapping[str, Check] | None = None) -> None:
        """Run every check once, so that the first answer is true, publish, and keep checking."""
        self._began_s = self._clock.monotonic_s()
        self._take(checks or {})
        self._services = {OVERALL, *services}
        await self.servicer.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._publish()
        await asyncio.gather(*(self._run(check) for check in self._checks.values()))
        self._serving = True
        await self._publish()
        self._watch()

    async def replace(self, checks: Mapping[str, Check]) -> None:
        """Watch these instead. The health stays as it is until all of the new ones pass, at most
        :data:`SETTLE_S`: what was just built needs a moment."""
        await self.stop()
        old, self._broken, self._held = self._broken, {}, True
        self._take(checks)
        try:
            for _ in range(round(SETTLE_S / SETTLE_EVERY_S)):
                await asyncio.gather(*(self._run(check) for check in self._checks.values()))
                if not self._broken:
                    break
                await self._clock.sleep(SETTLE_EVERY_S)
        finally:
            self._held = False
            if old or self._broken:
                log.info("health after the change", was=sorted(old), **{"is": sorted(self._broken)})
            await self._publish()
            self._watch()

    def _take(self, checks: Mapping[str, Check]) -> None:
        for name in self._checks.keys() - checks.keys():
            outages.ended(_work(name))
        self._checks = dict(checks)
        for check in self._checks.values():
            meanwhile = check.meanwhile or ("this service is not ready" if check.critical else "")
            if meanwhile:
                outages.meanwhile(check.name, meanwhile)

    def _watch(self) -> None:
        self._loops = [
            asyncio.create_task(self._repeat(check), name=f"check {check.name}") for check in self._checks.values()
        ]

    async def set_condition(self, name: str, holds: bool, services: frozenset[str] = frozenset()) -> None:
        """Set a critical condition that somebody else watches (a background task)."""
        if holds:
            self._broken.pop(name, None)
        else:
            self._broken[name] = services
        await self._publish()

    async def drain(self) -> None:
        """NOT_SERVING from here on, whatever the checks say."""
        self._serving = False
        await self.servicer.enter_graceful_shutdown()

    async def stop(self) -> None:
        """End the checks."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []

    async def _repeat(self, check: Check) -> None:
        up = True
        while True:
            await self._clock.sleep(check.interval_s if up else min(check.interval_s, FAILED_EVERY_S))
            up = await self._run(check)

    async def _run(self, check: Check) -> bool:
        """Whether it is well."""
        work = outages.work(_work(check.name), of=check.name)
        try:
            async with asyncio.timeout(check.timeout_s):
                await check.probe()
        except Exception as error:  # whatever a probe raises means the same: not well
            self._metrics.dependency_up.labels(dependency=check.name).set(0)
            if isinstance(error, TimeoutError):
                at = f" at {check.where}" if check.where else ""
                of = check.silence_of or check.name
                error = Unavailable(f"{of}{at} does not answer within {check.timeout_s:g} s", dependency=of)
            # What has just started needs a moment; whatever is away then is told by the work that needs it.
            if check.name in self._well or self._clock.monotonic_s() - self._began_s >= SETTLE_S:
                work.failed(error)
            up = False
        else:
            self._metrics.dependency_up.labels(dependency=check.name).set(1)
            work.well()
            self._well.add(check.name)
            up = True
        if check.critical:
            await self.set_condition(check.name, up, check.services)
        return up

    async def _publish(self) -> None:
        if self._held:
            return
        for service in self._services:
            concerned = any(
                not services or service in services or service == OVERALL for services in self._broken.values()
            )
            serving = self._serving and not concerned
            status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            await self.servicer.set(service, status)


def _work(check: str) -> str:
    return f"health check of {check}"
