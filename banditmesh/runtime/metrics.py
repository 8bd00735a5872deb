"""Prometheus conventions: one registry a process, passed as an argument, and every metric of the runtime listed here.

Names begin with ``banditmesh_``, times are seconds and sizes bytes (``_seconds``, ``_bytes``), counters end in
``_total``. A service lists its own metrics in its ``metrics.py`` in the same way: one frozen class whose constructor
takes the registry.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeVar

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""1 ms to 5 s: a selection answers within 50 ms or its slot stays empty; beyond 5 s everything is equally late."""


OwnerT = TypeVar("OwnerT")


def watch(gauge: Gauge, owner: OwnerT, value: Callable[[OwnerT], float]) -> None:
    """Read the gauge's value from its owner whenever somebody looks at it; 0 once the owner is gone."""
    # The owner is not held: a gauge with a function holds itself (prometheus_client 0.26), so what it knows is freed by
    # the collector only, which does not look at what was frozen.
    known = weakref.ref(owner)

    def read() -> float:
        there = known()
        return 0.0 if there is None else value(there)

    gauge.set_function(read)


class RenewableRegistry(CollectorRegistry):
    """A registry in which a metric that is registered again takes the place of the one before: for a service that is
    built anew because mesh.yaml has changed. Its counters begin at 0 then, as after a restart."""

    def __init__(self) -> None:
        super().__init__(auto_describe=True)
        self._before: list[Collector] | None = None
        self._since: list[Collector] = []

    def renew(self) -> None:
        """From here on metrics may be registered again, until :meth:`keep` or :meth:`undo`."""
        self._before, self._since = [], []

    def keep(self) -> None:
        """What has been registered since :meth:`renew` stays."""
        self._before = None

    def undo(self) -> None:
        """What was there before :meth:`renew` is back."""
        before, self._before = self._before or [], None
        for collector in self._since:
            self.unregister(collector)
        for collector in before:
            self.register(collector)

    def register(self, collector: Collector) -> None:
        """As the base class does, after what bears the same name has left."""
        if self._before is not None:
            there = {self._names_to_collectors.get(name) for name in self._get_names(collector)}  # type: ignore[no-untyped-call]
            for each in there:
                if each is not None:
                    self.unregister(each)
                    self._before.append(each)
            self._since.append(collector)
        super().register(collector)


def new_registry() -> RenewableRegistry:
    """A registry with the process's own figures (CPU, memory, open files, garbage collector)."""
    registry = RenewableRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MethodMetrics:
    """The metrics of one gRPC method with their labels resolved, since looking labels up costs more than counting."""

    def __init__(self, metrics: GrpcMetrics, method: str) -> None:
        self._requests = metrics.requests
        self._method = method
        self._by_code: dict[grpc.StatusCode, Counter] = {}
        self.in_flight: Gauge = metrics.in_flight.labels(method=method)
        self._seconds: Histogram = metrics.seconds.labels(method=method)
        self._refused = metrics.refused
        self._refused_by: dict[str, Counter] = {}
        self.late: Counter = metrics.refused.labels(method=method, reason="deadline")
        """Calls whose deadline had passed before anything was done."""

    def refused(self, code: grpc.StatusCode, reason: str) -> None:
        """Count a call that was refused before any work."""
        counter = self._refused_by.get(reason)
        if counter is None:
            counter = self._refused_by[reason] = self._refused.labels(method=self._method, reason=reason)
        counter.inc()
        self.finished(code, 0.0)

    def finished(self, code: grpc.StatusCode, seconds: float) -> None:
        """Count one finished call and its time."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._requests.labels(method=self._method, code=code.name)
        counter.inc()
        self._seconds.observe(seconds)


class GrpcMetrics:
    """Server side of gRPC. Methods are labelled by full name (``/package.Service/Method``); a method that does not
    exist is ``unknown``.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "banditmesh_grpc_requests_total", "Finished calls", ["method", "code"], registry=registry
        )
        self.seconds = Histogram(
            "banditmesh_grpc_request_seconds",
            "Time from the request's arrival to its status",
            ["method"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.refused = Counter(
            "banditmesh_grpc_refused_total",
            "Calls that were refused before any work: too many at once (concurrency), too long a queue in the service "
            "(queue), more than can be taken up (overflow), past their deadline (deadline), too many of one caller "
            "(rate), a caller that is not known or may not (access)",
            ["method", "reason"],
            registry=registry,
        )
        self.in_flight = Gauge("banditmesh_grpc_in_flight", "Calls being answered", ["method"], registry=registry)

    def method(self, name: str) -> MethodMetrics:
        """The metrics of one method; keep the result."""
        return MethodMetrics(self, name)


class ProcessMetrics:
    """Dependencies and background tasks of a service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.dependency_up = Gauge(
            "banditmesh_dependency_up",
            "1 when the last check of a dependency passed",
            ["dependency"],
            registry=registry,
        )
        self.task_up = Gauge(
            "banditmesh_task_up", "1 while a background task runs, 0 after a crash", ["task"], registry=registry
        )
        self.task_crashes = Counter(
            "banditmesh_task_crashes_total", "Crashes of a background task", ["task"], registry=registry
        )


class RedisMetrics:
    """Of a service that uses Redis."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.put_aside = Counter(
            "banditmesh_redis_put_aside_total",
            "Keys of Redis, or parts of them, that held what the mesh does not write and were put aside; not 0: "
            "another program, a person or a newer release writes into the mesh's keys",
            registry=registry,
        )
