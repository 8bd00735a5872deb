"""What the demos' commands have in common: a folder, and an exit code that is the verdict."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

FAILED = 1


def demonstrate(name: str, directory: Path | None, run: Callable[[Path, Console], bool]) -> None:
    """Run a demo in a folder; exit with :data:`FAILED` when it did not keep its promises.

    Args:
        name: Of the temporary folder.
        directory: Where data and logs stay; None: a temporary one, which stays only if something failed.
        run: The demo; tells whether all that it promised came true.
    """
    from banditmesh.demo.imports import ImportFailed
    from banditmesh.demo.movielens import NoRatings
    from banditmesh.local.process import DidNotStart

    console = Console()
    folder = directory or Path(tempfile.mkdtemp(prefix=f"banditmesh-{name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    good = False
    try:
        good = run(folder, console)
    except (NoRatings, DidNotStart, ImportFailed) as error:
        console.print(Text(f"✘ {error}", "red"), soft_wrap=True)
    finally:
        if directory is None and good:
            shutil.rmtree(folder, ignore_errors=True)
        elif directory is None:
            console.print(f"Everything is kept for a look: {folder}", highlight=False)
    if not good:
        raise typer.Exit(FAILED)
