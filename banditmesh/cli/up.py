"""``banditmesh up``: the whole mesh on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from banditmesh.local.stack import LocalMesh

QUICKSTART = Path(__file__).parents[1] / "quickstart"
FAILED, INTERRUPTED = 1, 130
_LOOK_EVERY_S = 1.0
_RESTARTS, _WITHIN_S = 5, 60.0


def up(
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The mesh.yaml; absent: ./mesh.yaml, else a small one to play with."
        ),
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Data, logs and ports; kept between runs.")] = Path(
        ".banditmesh"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier run left in --dir.")] = False,
    kafka: Annotated[str | None, typer.Option(help="Use this Kafka, host:port,…, instead of an embedded one.")] = None,
    redis: Annotated[
        str | None,
        typer.Option(help="Use this Redis or Valkey, redis://… or redis+cluster://…, instead of an embedded one."),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            help="file: a folder in --dir; s3: an embedded S3 server; or s3://bucket/prefix?endpoint=…, file:///folder."
        ),
    ] = "file",
) -> None:
    """Start Kafka, Valkey, a store and the five services, and stop them all on Ctrl-C.

    Servers that exist already are used with --kafka, --redis and --store. The services take the ports from 50051 on if
    those are free.
    """
    from banditmesh.local.process import DidNotStart
    from banditmesh.local.stack import Existing, LocalMesh
    from banditmesh.runtime.mesh import load_mesh

    console = Console()
    config = config or (Path("mesh.yaml") if Path("mesh.yaml").exists() else QUICKSTART / "mesh.yaml")
    load_mesh(config)
    if fresh:
        shutil.rmtree(directory, ignore_errors=True)
    existing = Existing(kafka, redis, None if store in ("file", "s3") else store)
    mesh = LocalMesh(
        directory,
        config,
        existing,
        embedded_s3=store == "s3",
        fixed_ports=True,
        progress=lambda part, what: console.print(f"  {part}: {what}", style="dim", highlight=False),
    )
    console.print(f"banditmesh up: {config}, everything under {directory}", highlight=False)
    # Ctrl-C while servers are starting in threads: the children are leashed to this process and end with it.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(INTERRUPTED))
    try:
        mesh.start()
    except DidNotStart as error:
        console.print(f"[red]✘[/] {error}", highlight=False)
        raise typer.Exit(FAILED) from error
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    good = False
    try:
        _welcome(console, mesh, config)
        _watch(console, mesh)
    except KeyboardInterrupt:
        good = True
        console.print("\nStopping …")
    except DidNotStart as error:
        console.print(f"[red]✘[/] {error}", highlight=False)
    finally:
        mesh.stop()
    console.print("Stopped; nothing is left running.")
    if not good:
        raise typer.Exit(FAILED)


def _watch(console: Console, mesh: LocalMesh) -> None:
    """Start services again that end by themselves, until that happens too often."""
    from banditmesh.local.process import DidNotStart

    restarts: deque[float] = deque(maxlen=_RESTARTS)
    while True:
        time.sleep(_LOOK_EVERY_S)
        for name, code, log_end in mesh.restart_ended():
            console.print(f"[yellow]{name} ended with code {code} and was started again[/]; its last words:\n{log_end}")
            restarts.append(time.monotonic())
            if len(restarts) == _RESTARTS and restarts[-1] - restarts[0] < _WITHIN_S:
                raise DidNotStart(name, f"it ended {_RESTARTS} times within {_WITHIN_S:g} s", log_end=log_end)


def _welcome(console: Console, mesh: LocalMesh, config: Path) -> None:
    table = Table("service", "gRPC", "metrics", header_style="bold")
    for name, service in mesh.services.items():
        table.add_row(name, service.address, f"http://127.0.0.1:{service.ports[1]}/metrics")
    console.print(table)
    for line in (f"{name.removeprefix('BANDITMESH_').lower()}: {mesh.settings[name]}" for name in _SHOWN):
        console.print(line, highlight=False)
    console.print(f"logs: {mesh.logs}", highlight=False)
    console.print("\nTry, in a second terminal (grpcurl is in .venv/bin of a checkout):", style="bold")
    for line in grpcurl_lines(mesh.addresses, quickstart=config.parent == QUICKSTART):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print("\nCtrl-C stops everything.")


_SHOWN = ("BANDITMESH_KAFKA", "BANDITMESH_REDIS", "BANDITMESH_STORE")


def grpcurl_lines(addresses: Mapping[str, str], *, quickstart: bool) -> list[str]:
    """Return commands to copy: what is there, and, for the mesh to play with, a whole round."""
    engine, importer, tracker = addresses["crs_engine"], addresses["importer"], addresses["tracker"]
    lines = [
        f"grpcurl -plaintext {engine} list",
        f"grpcurl -plaintext {engine} describe banditmesh.crs_engine.v1.CrsEngineService.SelectContent",
        f"grpcurl -plaintext {engine} grpc.health.v1.Health/Check",
    ]
    if not quickstart:
        return lines

    def call(address: str, method: str, request: str) -> str:
        return f"grpcurl -plaintext -d '{request}' {address} banditmesh.{method}"

    notify = '{{"service": "{}", "logic": "{}", "uri": "file://{}", "version": "1"}}'
    profiles = f'{{"uri": "file://{QUICKSTART / "profiles.csv"}", "version": "1"}}'
    comics = notify.format("comics", "new-volume", QUICKSTART / "comics-new-volume.jsonl")
    weather = notify.format("weather", "today", QUICKSTART / "weather-today.csv")
    return [
        *lines,
        call(importer, "importer.v1.ImporterService/NotifyProfiles", profiles),
        call(importer, "importer.v1.ImporterService/NotifyMapping", comics),
        call(importer, "importer.v1.ImporterService/NotifyMapping", weather),
        call(
            importer,
            "importer.v1.ImporterService/WatchImportJob",
            '{"job_id": "the jobId that NotifyMapping answered"}',
        ),
        call(engine, "crs_engine.v1.CrsEngineService/SelectContent", '{"placement": "talk-head-jp", "user_id": "ada"}'),
        call(
            engine,
            "crs_engine.v1.CrsEngineService/ExplainDecision",
            '{"dry_run": {"placement": "talk-head-jp", "user_id": "ada"}}',
        ),
        call(
            tracker,
            "tracker.v1.EventTrackerService/TrackEvents",
            '{"events": [{"impression_token": "the impressionToken", "shown": {}}, '
            '{"impression_token": "the same", "click": {}}]}',
        ),
    ]
