"""``banditmesh fit``: an off-line fit, measured, and saved as a snapshot."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from banditmesh.runtime.errors import InvalidArgument

if TYPE_CHECKING:
    from banditmesh.fit.fit import Fitted
    from banditmesh.fit.quality import Quality
    from banditmesh.runtime.addresses import StoreAddress


def fit(
    log: Annotated[Path, typer.Argument(help="A decision log: JSON lines (also .gz, .bz2, .zst, .xz) or Parquet.")],
    policy: Annotated[str, typer.Option(help="fm:factors=8 or a YAML file.")] = "stacked",
    test: Annotated[
        Path | None, typer.Option(help="Report AUC, log loss and RMSE on this log. Absent: not measured.")
    ] = None,
    valid: Annotated[
        Path | None,
        typer.Option(
            help="Stop when this log is predicted no better; the best pass counts. "
            "Absent: one row in ten of LOG, where passes must be counted."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many passes. Absent: as many as help.")] = None,
    patience: Annotated[int, typer.Option(min=1, help="Passes without progress before it stops.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of later passes.")] = 0,
    save: Annotated[
        str | None,
        typer.Option(help="Publish the model into this store: a folder, or s3://… Absent: it is not saved."),
    ] = None,
    placement: Annotated[str, typer.Option(help="Whose model is saved.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Fit a policy to a [bold]decision log[/] and measure it; [bold]--save[/] is a warm start for a new placement."""
    from banditmesh.bandits.errors import BanditError
    from banditmesh.decisions.spec import parse
    from banditmesh.fit.fit import Options
    from banditmesh.fit.fit import fit as run
    from banditmesh.fit.logs import checked
    from banditmesh.fit.save import save as publish

    _check_name(placement)
    store = None if save is None else _store(save)
    spec = parse(policy)
    for odd in checked(log, [each for each in (valid, test) if each is not None]):
        print(f"banditmesh: {odd}", file=sys.stderr)
    started = time.monotonic()
    with _progress() as bar:
        task = bar.add_task("", total=None, phase="reading", loss="")

        def show(epoch: int, done: int, of: int | None, found: Quality | None) -> None:
            bar.update(task, completed=done, total=of, phase=f"epoch {epoch}" if epoch else "reading")
            if found is not None:
                bar.update(task, loss=f"held-out loss {found.loss:.5f}")

        try:
            fitted = run(log, spec, Options(valid, test, epochs, patience, seed), show)
        except BanditError as error:  # such as a reward that the link cannot give
            raise InvalidArgument(f"{log}: {policy} cannot learn from it: {error}") from error
    seconds = time.monotonic() - started
    version = None if store is None else publish(fitted, store, placement, now_ms=int(time.time() * 1000))
    found = _report(fitted, seconds)
    if store is not None:
        found["saved"] = {"store": str(store), "placement": placement, "version": version}
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        _show(fitted, found)


def _check_name(placement: str) -> None:
    """Before the work, not after it."""
    from pydantic import TypeAdapter, ValidationError

    from banditmesh.runtime.section import Name

    try:
        TypeAdapter(Name).validate_python(placement)
    except ValidationError as error:
        raise InvalidArgument(error.errors()[0]["msg"], field="placement", value=placement) from error


def _store(save: str) -> StoreAddress:
    """Where the model is saved, known to be right before the work and not after it. A folder need not be there yet."""
    from banditmesh.runtime.addresses import FileAddress, parse_store

    if "://" in save:
        try:
            address = parse_store(save)
        except ValueError as error:
            raise InvalidArgument(str(error), field="save", value=save) from error
    else:
        address = FileAddress(Path(save).absolute())
    if isinstance(address, FileAddress):
        there = next(each for each in (address.folder, *address.folder.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InvalidArgument(f"{there} is no folder that can be written to", field="save", value=save)
    return address


def _progress() -> Progress:
    columns = (
        TextColumn("{task.fields[phase]}"),
        BarColumn(),
        TaskProgressColumn(show_speed=False),
        TextColumn("{task.completed} examples {task.fields[loss]}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _report(fitted: Fitted, seconds: float) -> dict[str, Any]:
    return {
        "policy": fitted.spec.text,
        "params": dict(fitted.spec.params),
        "model": fitted.spec.model,
        "examples": fitted.examples,
        "epochs": fitted.epochs,
        "seconds": round(seconds, 3),
        "valid": [asdict(each) for each in fitted.valid],
        "test": None if fitted.test is None else asdict(fitted.test),
    }


def _show(fitted: Fitted, found: dict[str, Any]) -> None:
    console = Console()
    passes = "pass" if fitted.epochs == 1 else "passes"
    console.print(f"{fitted.examples} examples, {fitted.epochs} {passes}, {found['seconds']:.1f} s")
    table = Table("", "rows", "AUC", "log loss", "RMSE", header_style="bold")
    best = min(fitted.valid, key=lambda each: each.loss, default=None)
    for name, each in (("held out", best), ("test", fitted.test)):
        if each is not None:
            table.add_row(name, str(each.rows), _digits(each.auc), _digits(each.log_loss), _digits(each.rmse))
    if table.row_count:
        console.print(table)
    written = json.dumps({fitted.spec.policy: found["params"]})
    console.print(f"In mesh.yaml this model is: policy: {written}", markup=False, highlight=False, soft_wrap=True)
    if "saved" in found:
        saved = found["saved"]
        console.print(
            f"Saved: version {saved['version']} of {saved['placement']}/{found['model']} in {saved['store']}",
            markup=False,
            soft_wrap=True,
        )


def _digits(number: float | None) -> str:
    return "" if number is None else f"{number:.5f}"
