"""What every demo stands on: a mesh of its own on this machine, with a Data Provider, stopped in the end."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from banditmesh.local import cache
from banditmesh.local.board import Board
from banditmesh.local.stack import LocalMesh, Process


@contextmanager
def started(
    folder: Path,
    mesh_file: Path,
    provider: Sequence[str],
    console: Console,
    *,
    embedded_s3: bool = True,
    prepare: Callable[[Path], None] = lambda config: None,
) -> Iterator[LocalMesh]:
    """A mesh that runs.

    Args:
        folder: Where it keeps everything.
        mesh_file: Its ``mesh.yaml``, with ``${PROVIDER}`` where the Data Provider's address belongs.
        provider: The Data Provider's module and arguments.
        embedded_s3: Whether it has an S3 store; if not, a folder.
        prepare: What is done before it starts, with the ``mesh.yaml`` as it will be.

    Raises:
        DidNotStart: A part of it did not start.
    """
    argv = [*provider, "--address", "{address}"]
    with Process("provider", folder / "provider", logs=folder / "logs", argv=argv, env={}) as running:
        config = folder / "mesh.yaml"
        config.write_text(string.Template(mesh_file.read_text()).substitute(PROVIDER=running.address))
        mesh = LocalMesh(folder, config, embedded_s3=embedded_s3)
        prepare(config)
        store = "an S3 store " if embedded_s3 else ""
        console.print(f"Starting Kafka, Valkey, {store}and the five services …")
        with Board(console) as board:
            mesh.progress = board.tell
            mesh.start()
        try:
            mesh.progress = lambda part, what: None
            yield mesh
        finally:
            mesh.stop()


def films(ratings: Path | None) -> list[str]:
    """The Data Provider of films. ``ratings``: others than MovieLens 100k."""
    argv = ["banditmesh.demo.provider", "--cache", str(cache.folder())]
    return argv if ratings is None else [*argv, "--ratings", str(ratings.absolute())]
