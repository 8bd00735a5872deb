"""``banditmesh up``: the whole mesh on this machine."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from banditmesh.local.stack import Ended, LocalMesh
    from banditmesh.runtime.mesh import Mesh

FAILED, INTERRUPTED = 1, 130
_LOOK_EVERY_S = 0.5
_RESTARTS, _WITHIN_S = 5, 60.0
_LAST_WORDS = 5
_SHOWN = {"kafka": "BANDITMESH_KAFKA", "redis": "BANDITMESH_REDIS", "store": "BANDITMESH_STORE"}


def up(
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The mesh.yaml; absent: ./mesh.yaml, else a small one to play with."
        ),
    ] = None,
    directory: Annotated[
        Path, typer.Option("--dir", file_okay=False, help="Data, logs and ports; kept between runs.")
    ] = Path(".banditmesh"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier run left in --dir.")] = False,
    kafka: Annotated[str | None, typer.Option(help="Use this Kafka, host:port,…; absent: an embedded one.")] = None,
    redis: Annotated[
        str | None,
        typer.Option(help="Use this Redis or Valkey, redis://… or redis+cluster://…; absent: an embedded one."),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            help="file: a folder in --dir; s3: an embedded S3 server; or s3://bucket/prefix?endpoint=…, file:///folder."
        ),
    ] = "file",
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="The five services speak TLS, by a throw-away authority that is made in --dir. Kafka, Valkey and the "
            "store that are started here do not: they listen on this machine alone.",
        ),
    ] = False,
) -> None:
    """Start Kafka, Valkey, a store and the five services, and stop them all on Ctrl-C.

    Servers that exist already are used with --kafka, --redis and --store. The services take the ports from 7051 on if
    those are free.
    """
    from banditmesh.cli.grpcurl import QUICKSTART
    from banditmesh.local.board import Board
    from banditmesh.local.stack import Existing, LocalMesh
    from banditmesh.runtime.mesh import load_mesh
    from banditmesh.signals import interrupt_on_signals

    console = Console()
    config = config or (Path("mesh.yaml") if Path("mesh.yaml").exists() else QUICKSTART / "mesh.yaml")
    loaded = load_mesh(config)
    existing = Existing(kafka, redis, None if store in ("file", "s3") else store)
    mesh = LocalMesh(directory, config, existing, embedded_s3=store == "s3", fixed_ports=True, fresh=fresh, tls=tls)
    console.print(Text(f"{config}, everything under {directory}"), soft_wrap=True)
    if mesh.ca is not None:
        others = "what else is started here speaks none, and listens on this machine alone"
        console.print(Text(f"TLS: the five services, by the authority in {mesh.ca}; {others}"), soft_wrap=True)
    interrupt_on_signals(mesh.kill)
    try:
        with Board(console) as board:
            mesh.progress = board.tell
            mesh.start()
    except KeyboardInterrupt:
        console.print("Stopped before all was up; nothing is left running.")
        raise typer.Exit(INTERRUPTED) from None
    try:
        _welcome(console, mesh, None if config.parent == QUICKSTART else loaded)
        _watch(console, mesh)
    except KeyboardInterrupt:
        console.print()
    finally:
        with Board(console) as board:
            mesh.progress = board.tell
            mesh.stop()
        console.print("Stopped; nothing is left running.")


def _watch(console: Console, mesh: LocalMesh) -> None:
    """Start parts again that end by themselves.

    Raises:
        DidNotStart: One does not start again, or that happens too often.
    """
    from banditmesh.local.process import DidNotStart

    def tell(part: str, what: str) -> None:
        if what != "starting":  # that was said with its end
            console.print(Text(f"{time.strftime('%H:%M:%S')}  {part}: {what}", "yellow"), soft_wrap=True)

    mesh.progress = tell
    restarts: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RESTARTS))
    while True:
        time.sleep(_LOOK_EVERY_S)
        before = mesh.addresses
        for ended in mesh.restart_ended():
            _last_words(console, ended)
            now = mesh.addresses.get(ended.name)
            if now != before.get(ended.name):
                tell(ended.name, f"somebody else has its port: it is at {now}")
            own = restarts[ended.name]
            own.append(time.monotonic())
            if len(own) == _RESTARTS and own[-1] - own[0] < _WITHIN_S:
                often = f"it ended {_RESTARTS} times within {_WITHIN_S:g} s"
                raise DidNotStart(ended.name, often, log=ended.log, log_end=ended.log_end)


def _last_words(console: Console, ended: Ended) -> None:
    """What it logged before it ended, unless it was killed: then it had nothing to say."""
    if ended.how != "SIGKILL":
        for line in ended.log_end.splitlines()[-_LAST_WORDS:]:
            console.print(Text(f"  | {line}", "dim"), soft_wrap=True)
    console.print(Text(f"  its log: {ended.log}", "dim"), soft_wrap=True)


def _welcome(console: Console, mesh: LocalMesh, own: Mesh | None) -> None:
    """``own``: the mesh.yaml that is running; None: the one to play with."""
    from banditmesh.cli.grpcurl import grpcurl_lines
    from banditmesh.runtime.addresses import shown

    table = Table("service", "gRPC", "metrics", header_style="bold")
    for name, service in mesh.services.items():
        table.add_row(name, service.address, service.metrics_url)
    console.print(table)
    for port, service in mesh.moved.items():
        console.print(
            Text(
                f"{port} or its metrics port is taken by somebody else: {service.name} is at {service.address}. "
                "Stop that one and start again to have it back."
            ),
            style="yellow",
        )
    where = {name: mesh.settings[variable] for name, variable in _SHOWN.items()}
    for name, value in {**where, "logs": str(mesh.logs)}.items():
        console.print(Text(f"{name:<6} {shown(value)}"), soft_wrap=True)
    console.print("\nTry, in a second terminal:", style="bold")
    for lines in grpcurl_lines(mesh.addresses, own=own, ca=mesh.ca):
        console.print(Text(f"\n# {lines.heading}", "dim"), soft_wrap=True)  # or its end would be a command
        for command in lines.commands:
            console.print(Text(command), soft_wrap=True)
    console.print("\nAll is healthy. Ctrl-C stops everything.")
