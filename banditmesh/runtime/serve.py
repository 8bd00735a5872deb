"""The server of a service process: gRPC, health, reflection, metrics, background tasks and an orderly stop.

``bootstrap(settings, server)`` of a service builds its clients, registers everything here, and returns::

    async def bootstrap(settings: TrackerSettings, server: Server) -> None:
        producer = await open_producer(settings.kafka)
        server.on_stop("producer", producer.close)
        server.check("kafka", producer.ping)
        server.add_service(tracker_pb2.DESCRIPTOR.services_by_name["EventTracker"],
                           tracker_pb2_grpc.add_EventTrackerServicer_to_server, TrackerServicer(producer))
        server.background("retries", retries.run)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry

from banditmesh.runtime.access import Access
from banditmesh.runtime.access_table import AccessTable
from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.admission import Door
from banditmesh.runtime.clock import Clock, SystemClock
from banditmesh.runtime.errors import ConfigurationError, Unavailable
from banditmesh.runtime.exporter import MetricsServer
from banditmesh.runtime.generation import Generation
from banditmesh.runtime.health import Check, Health, Probe
from banditmesh.runtime.interceptors import CallInterceptor, CallRules
from banditmesh.runtime.lifecycle import RESTART, BackgroundTasks, OnCrash, Run
from banditmesh.runtime.lines import Lines
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.metrics import GrpcMetrics, ProcessMetrics, RenewableRegistry, new_registry
from banditmesh.runtime.options import ServerOptions, channel_options
from banditmesh.runtime.reflection import enable_reflection
from banditmesh.runtime.tls import ServerCertificates
from banditmesh.runtime.unserved import UnservedCalls

__all__ = ["Server", "ServerOptions"]

log = get_logger(__name__)

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
PROBES = (f"/{HEALTH.full_name}/Check", f"/{HEALTH.full_name}/Watch")
WATCHES = (f"/{HEALTH.full_name}/Watch", f"/{REFLECTION.full_name}/ServerReflectionInfo")
LOOKS_AT_THE_LINE, BETWEEN_LOOKS_S = 50, 0.01
"""Before the transport stops. Who was cut off earlier, by load, is still counted: then all of them are made."""
ServicerT = TypeVar("ServicerT")


class Server:
    """One service process. Register first, then :meth:`start`; or ``async with server:`` for start and stop."""

    def __init__(
        self,
        options: ServerOptions | None = None,
        *,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.options = options if options is not None else ServerOptions()
        self.registry = registry if registry is not None else new_registry()
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._metrics = ProcessMetrics(self.registry)
        self.health = Health(self.clock, self._metrics)
        self._access = Access(self.registry)
        self._generation = Generation(self._new_tasks())
        self.kept: dict[str, Any] = {}
        self.mesh_text: str | None = None
        """What ``mesh.yaml`` says, as whoever follows it has read and checked it; None: read the file."""
        """What a bootstrap leaves to the one that follows when mesh.yaml changes."""
        self._handing_over: asyncio.Task[None] | None = None
        self._next: Generation | None = None
        """Being built."""
        self._stop_requested = asyncio.Event()
        self._exit_code = 0
        self._stopping: asyncio.Task[None] | None = None
        self._grpc: grpc.aio.Server | None = None
        self._interceptor: CallInterceptor | None = None
        self._unserved: UnservedCalls | None = None
        self._metrics_server: MetricsServer | None = None
        self._probed: grpc.aio.Server | None = None
        self._port = 0
        self._health_port = 0

    @property
    def port(self) -> int:
        """The bound gRPC port, after :meth:`start`."""
        return self._port

    @property
    def health_port(self) -> int:
        """The bound port that serves health alone; 0 when there is none."""
        return self._health_port

    @property
    def metrics_port(self) -> int:
        """The bound metrics port, after :meth:`start`; 0 when there is no endpoint."""
        return self._metrics_server.port if self._metrics_server is not None else 0

    def calls_taken(self) -> int:
        """How many calls the transport has handed over, ever."""
        return self._interceptor.accepted if self._interceptor is not None else 0

    def overflows(self) -> bool:
        """Whether more calls come than are taken up, so that the transport cuts some off."""
        return self._interceptor is not None and self._interceptor.overflows

    def add_service(
        self,
        descriptor: ServiceDescriptor,
        add_to_server: Callable[[ServicerT, grpc.aio.Server], None],
        servicer: ServicerT,
        *,
        until_drain: tuple[str, ...] = (),
        doors: Mapping[str, Door] | None = None,
    ) -> None:
        """Serve a generated service. ``until_drain``: names of streaming methods that are ended with UNAVAILABLE when
        the server begins to stop (watches that would otherwise use up the whole grace). ``doors``: what calls of unary
        methods are asked before their requests are received; each of these methods has a line of its own in front of
        the event loop, the others share one. Raises ValueError when the service has no such method."""
        doors = doors or {}
        for method in (*until_drain, *doors):
            if method not in descriptor.methods_by_name:
                raise ValueError(f"{descriptor.full_name} has no method {method!r}")
        self._newest.until_drain |= {f"/{descriptor.full_name}/{method}" for method in until_drain}
        self._newest.doors |= {f"/{descriptor.full_name}/{method}": door for method, door in doors.items()}
        self._newest.services.append(descriptor.full_name)
        self._newest.registrations.append(lambda server: add_to_server(servicer, server))

    def check(
        self,
        name: str,
        probe: Probe,
        *,
        interval_s: float = 5.0,
        timeout_s: float = 2.0,
        critical: bool = True,
        services: frozenset[str] = frozenset(),
        meanwhile: str = "",
        silence_of: str = "",
        where: str = "",
    ) -> None:
        """Watch a dependency: ``probe`` raises when it is down. While a critical one is down, ``services`` (by full
        name; all of the process when empty) are NOT_SERVING. ``meanwhile``: what the service does then, for the log;
        ``silence_of``: which dependency is away when the probe gets no answer, if it is not ``name``; ``where``: its
        address."""
        check = Check(name, probe, interval_s, timeout_s, critical, services, meanwhile, silence_of, where)
        self._newest.check(check)

    def guard(self, table: AccessTable | None) -> None:
        """Let only the callers of this table in, each to what its roles allow; None: everybody to everything."""
        self._newest.table = table
        if self._next is None:  # else once it takes over
            self._access.set_table(table)
        if table is not None and self.options.tls is None:
            log.warning("there is an access table, but no TLS: keys travel in plaintext, certificates do not at all")

    def background(
        self, name: str, run: Run, *, on_crash: OnCrash = RESTART, critical: bool = True, one_shot: bool = False
    ) -> None:
        """Run ``run()`` from start to stop, supervised (see :class:`BackgroundTasks`). It is cancelled on stop, after
        the last call has ended.
        """
        self._newest.tasks.add(name, run, on_crash=on_crash, critical=critical, one_shot=one_shot)

    def on_stop(self, name: str, hook: Run, *, deadline_s: float = 10.0) -> None:
        """Call ``hook()`` on stop, after the calls and the background tasks have ended; the last registered first."""
        self._newest.hooks.add(name, hook, deadline_s=deadline_s)

    def run_alone(self) -> None:
        """The background tasks that this service registers must not run beside those of its former self."""
        self._newest.alone = True

    def _new_tasks(self) -> BackgroundTasks:
        return BackgroundTasks(self.clock, self.health, self._metrics, lambda _task: self.request_stop(exit_code=1))

    @property
    def _newest(self) -> Generation:
        return self._next if self._next is not None else self._generation

    async def rebuild(self, build: Callable[[], Awaitable[None]]) -> None:
        """Let ``build`` (a bootstrap) register everything anew, and hand over to what it made: calls, background tasks
        and checks. The port stays open; calls under way are finished by those that began them.

        Raises what ``build`` raises; everything is then as it was.
        """
        calls, old = self._interceptor, self._generation
        assert calls is not None
        assert isinstance(self.registry, RenewableRegistry)
        new = self._next = Generation(self._new_tasks())
        self.registry.renew()
        try:
            await build()
            if self._stopping is not None:
                raise Unavailable("the server is stopping")
        except BaseException:
            self.registry.undo()
            self._next = None
            await new.tasks.stop(self.options.task_stop_s)
            await new.hooks.run()
            raise
        self.registry.keep()
        # From here on it is carried through, whoever waits for it.
        self._handing_over = asyncio.create_task(self._hand_over(calls, old, new), name="hand over")
        await asyncio.shield(self._handing_over)

    async def _hand_over(self, calls: CallInterceptor, old: Generation, new: Generation) -> None:
        self._generation, self._next = new, None
        if not new.alone:
            new.tasks.start()
            await self.health.replace(new.checks)
        self._access.set_table(new.table)
        under_way = calls.replace(new.finder(), new.doors)
        await old.tasks.stop(self.options.task_stop_s)
        try:
            async with asyncio.timeout(self.options.grace_s):
                await under_way.wait_for_none()
        except TimeoutError:
            log.warning("calls outlast the change of mesh.yaml; they may fail", grace_s=self.options.grace_s)
        await old.hooks.run()
        if new.alone:
            new.tasks.start()
            await self.health.replace(new.checks)

    async def start(self) -> None:
        """Bind, run the checks once, start the background tasks, serve. Raises ConfigurationError when a port is
        taken.
        """
        options = self.options
        if options.metrics is not None:
            self._metrics_server = MetricsServer(self.registry, self.health.obstacles)
            await self._metrics_server.start(options.metrics)
        rules = CallRules(
            options.default_deadline_s,
            options.deadlines_s,
            frozenset({*self._generation.until_drain, *WATCHES}),
            options.max_concurrent_rpcs,
            frozenset(f"/{HEALTH.full_name}/{method.name}" for method in HEALTH.methods),
        )
        calls = self._interceptor = CallInterceptor(GrpcMetrics(self.registry), rules, self._access)
        calls.replace(self._generation.finder(), self._generation.doors)
        waiting_at_most = (1 + len(self._generation.doors)) * options.max_waiting_rpcs  # probes are few
        unserved = self._unserved = UnservedCalls(lambda: calls.accepted, lambda: calls.idle, waiting_at_most)
        server = self._grpc = grpc.aio.server(interceptors=(calls,), options=channel_options(options))
        unserved.watch()
        calls.watch_overflow(unserved.certain)
        self.registry.register(unserved)
        lines = Lines(server, PROBES)
        lines.open(self._generation.doors)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, lines)
        if options.reflection:
            names = (*self._generation.services, HEALTH.full_name, REFLECTION.full_name)
            enable_reflection(names, lines)
        credentials = None
        if options.tls is not None:
            credentials = ServerCertificates(options.tls, self.registry).credentials()
        self._port = _bind(server, options.address, credentials, "BANDITMESH_GRPC_ADDRESS")
        if options.health is not None:
            self._probed = grpc.aio.server(options=channel_options(options))
            health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._probed)
            self._health_port = _bind(self._probed, options.health, None, "BANDITMESH_HEALTH_ADDRESS")
        await self.health.start(self._generation.services, self._generation.checks)
        self._generation.tasks.start()
        await server.start()
        if self._probed is not None:
            await self._probed.start()
        log.info(
            "serving",
            address=f"{options.address.host}:{self._port}",
            tls="none" if options.tls is None else "mutual" if options.tls.client_ca is not None else "server",
            metrics_port=self.metrics_port,
            services=self._generation.services,
        )

    def request_stop(self, exit_code: int = 0) -> None:
        """Make :meth:`run_until_stopped` stop the server; the first non-zero exit code counts."""
        self._exit_code = self._exit_code or exit_code
        self._stop_requested.set()

    @property
    def stop_requested(self) -> asyncio.Event:
        """Set once the process should stop."""
        return self._stop_requested

    async def run_until_stopped(self) -> int:
        """Wait for :meth:`request_stop`, stop, return the exit code."""
        await self._stop_requested.wait()
        await self.stop()
        return self._exit_code

    async def stop(self) -> None:
        """NOT_SERVING, ``drain_delay_s``, refuse calls, let those in flight finish within ``grace_s``, end background
        tasks, run the stop hooks. Safe to call twice, and after a start that failed."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="stop")
        await asyncio.shield(self._stopping)  # who waits may be cancelled; the stop goes on

    async def _stop(self) -> None:
        log.info("stopping", grace_s=self.options.grace_s)
        await self.health.drain()
        if self._handing_over is not None:
            await asyncio.wait({self._handing_over})
        if self._grpc is not None and self._interceptor is not None:
            await self.clock.sleep(self.options.drain_delay_s)
            self._interceptor.drain()
            await self._take_who_stands_in_line()
            await self._grpc.stop(self.options.grace_s)
        await self._generation.tasks.stop(self.options.task_stop_s)
        await self.health.stop()
        await self._generation.hooks.run()
        if self._probed is not None:
            await self._probed.stop(0)
        if self._metrics_server is not None:
            await self._metrics_server.stop()
        log.info("stopped")

    async def _take_who_stands_in_line(self) -> None:
        """The transport cuts off, when it stops, what the event loop has not taken up (its clients see CANCELLED); on a
        busy machine there always is something. So it stops at a moment when there is nothing."""
        for _ in range(LOOKS_AT_THE_LINE):
            if self._unserved is None or self._unserved.not_taken() <= 0:
                return
            await asyncio.sleep(BETWEEN_LOOKS_S)

    async def __aenter__(self) -> Server:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


def _bind(server: grpc.aio.Server, address: HostPort, credentials: grpc.ServerCredentials | None, variable: str) -> int:
    try:
        if credentials is None:
            return int(server.add_insecure_port(str(address)))
        return int(server.add_secure_port(str(address), credentials))
    except RuntimeError as error:
        raise ConfigurationError(
            f"cannot serve gRPC on {address}: the port is taken, or the host is not one of this machine",
            hint=f"choose another {variable} (port 0 takes a free one)",
        ) from error
