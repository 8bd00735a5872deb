"""From the command line to a running service: the whole of a service's ``__main__.py`` is one call of
:func:`service_main`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import uvloop

from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.errors import ConfigurationError, InvalidArgument, MeshError
from banditmesh.runtime.logging import configure_logging, get_logger
from banditmesh.runtime.pod_events import PodEvents
from banditmesh.runtime.reload import Reloader
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.settings import (
    LogFormat,
    LogLevel,
    ServiceSettings,
    describe,
    load_settings,
    unknown_variables,
)
from banditmesh.runtime.tls import ServerTls
from banditmesh.signals import exit_on_signals

log = get_logger(__name__)

STOPPED, FAILED, MISCONFIGURED = 0, 1, 2
SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def service_main(
    name: str,
    settings_type: type[SettingsT],
    bootstrap: Callable[[SettingsT, Server], Awaitable[None]],
    *,
    description: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, read settings, configure logs, run ``bootstrap`` and serve under uvloop until SIGTERM or Ctrl-C. Returns
    the exit code.

    0: stopped as asked. 1: a background task ended the process, or a dependency was away at the start. 2: the command
    line, the settings or
    ``mesh.yaml`` are wrong; the message says what, without a traceback.
    """
    arguments = vars(_parser(name, settings_type, description).parse_args(argv))
    try:
        settings = load_settings(settings_type, arguments)
    except ConfigurationError as error:
        return _refuse(name, error)
    configure_logging(name, level=settings.log_level, style=settings.log_format)
    for variable in unknown_variables(settings_type):
        log.warning("unknown environment variable: a typing error?", variable=variable)
    code = uvloop.run(_run(name, settings, bootstrap))
    exit_on_signals(code)  # nothing is left to put in order, and the interpreter takes a moment to end
    return code


def server_tls(settings: ServiceSettings) -> ServerTls | None:
    """The certificates to serve with; None: plaintext. Raises ConfigurationError when one is missing."""
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if cert is not None and key is not None:
        return ServerTls(cert, key, client_ca)
    if cert is None and key is None and client_ca is None:
        return None
    raise ConfigurationError("BANDITMESH_TLS_CERT and BANDITMESH_TLS_KEY are needed together")


def server_options(settings: ServiceSettings) -> ServerOptions:
    """How to serve, as the environment says."""
    return ServerOptions(
        address=settings.grpc_address,
        metrics=HostPort(settings.metrics_host, settings.metrics_port),
        max_message_bytes=settings.max_message_bytes,
        default_deadline_s=settings.default_deadline_s,
        drain_delay_s=settings.drain_delay_s,
        grace_s=settings.grace_s,
        reuse_port=settings.reuse_port,
        reflection=settings.reflection,
        tls=server_tls(settings),
        health=settings.health_address,
        max_concurrent_rpcs=settings.max_concurrent_rpcs,
        max_waiting_rpcs=settings.max_waiting_rpcs,
        max_connections=settings.max_connections,
        max_metadata_bytes=settings.max_metadata_bytes,
        max_connection_age_s=settings.max_connection_age_s,
        connection_grace_s=settings.connection_grace_s,
    )


async def _run(name: str, settings: SettingsT, bootstrap: Callable[[SettingsT, Server], Awaitable[None]]) -> int:
    try:
        server = Server(server_options(settings))
    except MeshError as error:
        return _refuse(name, error)
    loop = asyncio.get_running_loop()

    def asked_to_stop(number: signal.Signals) -> None:
        log.info("signal", signal=number.name)
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)  # the second one ends the process at once, without a KeyboardInterrupt
        server.request_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop, number)

    async def start() -> None:
        await bootstrap(settings, server)
        await server.start()

    events = PodEvents(name, settings.pod_name, settings.pod_uid) if settings.pod_name else None
    reloader = Reloader(settings.config, server, lambda: bootstrap(settings, server), events)
    reloading: asyncio.Task[None] | None = None
    starting = asyncio.create_task(start())
    asked = asyncio.create_task(server.stop_requested.wait())
    try:
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            log.info("asked to stop before the start was through")
            starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if not starting.cancelled():
            starting.result()
            reloading = asyncio.create_task(reloader.run(), name="mesh.yaml")
        else:
            server.request_stop()
        return await server.run_until_stopped()
    except MeshError as error:
        return _refuse(name, error)
    except Exception:  # a bug in the bootstrap: said once, in the log's own form
        log.exception("the start failed")
        return FAILED
    finally:
        asked.cancel()
        await server.stop()
        if reloading is not None:
            reloading.cancel()


def _refuse(name: str, error: MeshError) -> int:
    print(f"{name}: {error}", file=sys.stderr, flush=True)
    return MISCONFIGURED if isinstance(error, (ConfigurationError, InvalidArgument)) else FAILED


def _parser(name: str, settings_type: type[ServiceSettings], description: str) -> argparse.ArgumentParser:
    lines = [f"  {variable} ({default})\n      {meaning}" for variable, default, meaning in describe(settings_type)]
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{name.replace('-', '_')}",
        description=description,
        epilog="\n".join(
            [
                "environment (what an option sets, it overrides):",
                *lines,
                "",
                "exit codes: 0 stopped as asked, 1 failed, 2 wrong settings or configuration",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the mesh configuration (mesh.yaml)")
    parser.add_argument("--grpc-address", metavar="HOST:PORT", help="where to serve gRPC; port 0 takes a free one")
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="port of /metrics; 0 takes a free one")
    parser.add_argument("--log-level", choices=get_args(LogLevel))
    parser.add_argument("--log-format", choices=get_args(LogFormat))
    return parser
