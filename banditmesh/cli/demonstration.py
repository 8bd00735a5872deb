"""What the demos' commands have in common: a folder, and an exit code that is the verdict."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from banditmesh.output import check_output

FAILED = 1


def demonstrate(
    name: str, directory: Path | None, writes: Mapping[str, Path | None], run: Callable[[Path, Console], bool]
) -> None:
    """Run a demo in a folder; exit with :data:`FAILED` when it did not keep its promises.

    Args:
        name: Of the temporary folder.
        directory: Where data and logs stay; None: a temporary one, which stays only if something failed.
        writes: Files that it writes in the end, by their options; those that cannot be written are refused before it.
        run: The demo; tells whether all that it promised came true.
    """
    from banditmesh.demo.imports import ImportFailed
    from banditmesh.demo.movielens import NoRatings
    from banditmesh.local.process import DidNotStart

    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)  # what it writes may be meant to lie there
    for option, path in writes.items():
        if path is not None:
            check_output(path, option)
    console = Console()
    folder = directory or Path(tempfile.mkdtemp(prefix=f"banditmesh-{name}-"))
    good = False
    try:
        good = run(folder, console)
    except (NoRatings, DidNotStart, ImportFailed) as error:
        console.print(Text(f"✘ {error}", "red"), soft_wrap=True)
    finally:
        if directory is None and good:
            shutil.rmtree(folder, ignore_errors=True)
        elif directory is None:
            console.print(f"Everything is kept for a look: {folder}", highlight=False, markup=False)
    if not good:
        raise typer.Exit(FAILED)
