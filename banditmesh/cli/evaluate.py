"""``banditmesh evaluate``: what a policy would earn in a mesh, before it goes live."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from banditmesh.cli.archive import moment
from banditmesh.cli.evaluation_tables import show_judgement
from banditmesh.cli.plots import check_plot
from banditmesh.runtime.errors import ConfigurationError, InvalidArgument

if TYPE_CHECKING:
    from banditmesh.decisions.spec import Spec
    from banditmesh.runtime.placement import Placement

NOT_TO_BE_BELIEVED: Final = 3
"""The exit code of ``--strict``."""
ALL_RULES: Final = "all"


def evaluate(
    policy: Annotated[
        str,
        typer.Option(
            help="A variant of the placement (its newest published model, as it is), or a policy such as "
            "linucb:alpha=0.5, which learns as it goes."
        ),
    ],
    placement: Annotated[str, typer.Option(help="The placement, as mesh.yaml names it.")],
    store: Annotated[
        str | None,
        typer.Option(
            envvar="BANDITMESH_STORE",
            help="The mesh's store, where its archive and its models are. Absent: with --log none is needed.",
        ),
    ] = None,
    config: Annotated[Path, typer.Option(envvar="BANDITMESH_CONFIG", help="The mesh.yaml of the mesh.")] = Path(
        "mesh.yaml"
    ),
    log: Annotated[
        Path | None,
        typer.Option(help="A decision log in the place of the archive (docs/decision-log.md). Absent: the archive."),
    ] = None,
    explore: Annotated[
        str, typer.Option(help="An exploration in the place of the policy's own: ucb:alpha=0.5,floor=0.01.")
    ] = "",
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Decisions from this time on: 2026-11-01T14:00:00Z, 2026-11-01 (UTC), or how long ago: 7d. "
            "Absent: 30 days.",
        ),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Decisions up to this time; absent: now.")] = None,
    without_rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|INDEX",
            help="A rule of the placement, by its name or its number from 0: what the policy would earn without it "
            'too. May be said several times; "all": each of them. Absent: none.',
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw estimates and intervals into this PNG file. Absent: no plot.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 3 when an estimate should not be believed.")
    ] = False,
) -> None:
    """Estimate reward, click rate and mute rate of a [bold]policy[/] from what a mesh has archived of other policies.

    The learner does the same by EvaluatePolicy and WatchEvaluation.
    """
    from banditmesh.bandits.errors import BanditError
    from banditmesh.replay.judgement import judge
    from banditmesh.replay.judgement_report import report
    from banditmesh.replay.of_mesh import DAYS

    check_plot(plot)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]} rows"),
    )
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="judgement-") as folder,
        Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        ) as bar,
    ):
        task = bar.add_task("reading", total=None, rows=0)

        def show(stage: str, rows: int, share: float) -> None:
            bar.update(task, description=stage, completed=share, total=1.0 if share else None, rows=rows)

        path = log or Path(folder) / "decisions.parquet"
        until = moment(end, "--to") if end else datetime.now(UTC)
        since = moment(start, "--from") if start else until - timedelta(days=DAYS)
        if since >= until:
            raise InvalidArgument("must be before --to", field="--from", value=start)
        spec, without = asyncio.run(
            _prepare(
                store,
                config,
                placement,
                policy,
                explore,
                without_rule or [],
                None if log else (since, until, path),
                show,
            )
        )
        try:
            found = judge(path, spec, without=without, progress=show)
        except BanditError as error:
            raise InvalidArgument(f"the policy cannot learn from these decisions: {error}") from error
    if as_json:
        print(json.dumps({"placement": placement, **report(found)}, allow_nan=False))
    else:
        for each in (found, *found.without.values()):
            show_judgement(each, Console())
    told = [
        *found.warnings,
        *(f"without {rule}: {why}" for rule, each in found.without.items() for why in each.warnings),
    ]
    for warning in told:
        print(f"banditmesh: {warning}", file=sys.stderr)
    if plot is not None:
        from banditmesh.cli.evaluation_plot import draw

        draw(found, plot)
    if strict and told:
        raise typer.Exit(NOT_TO_BE_BELIEVED)


async def _prepare(
    store_url: str | None,
    config: Path,
    name: str,
    policy: str,
    explore: str,
    without: Sequence[str],
    archived: tuple[datetime, datetime, Path] | None,
    show: Any,
) -> tuple[Spec, list[str]]:
    """What is judged, and without which rules; with ``archived``, the decisions of that span are put into that file."""
    from banditmesh.decisions.spec import parse
    from banditmesh.replay.of_mesh import joined, spool, target
    from banditmesh.runtime.store import open_existing

    placement = _placement(config, name, needed=archived is not None)
    rules = _rules(placement, without)
    if archived is None and (placement is None or policy not in placement.experiment.variants):
        return parse(joined(policy, explore)), rules
    if store_url is None:
        if archived is not None:
            hint = "say --store, or set BANDITMESH_STORE; or --log"
            raise ConfigurationError("there is no store to read the archive from", hint=hint)
        raise ConfigurationError(
            f"{policy} is a variant of {name} in {config}, whose published model is in the store",
            hint="say --store, or set BANDITMESH_STORE; for a policy that is new, give one with a parameter, such as "
            "linucb:alpha=0.5",
        )
    assert placement is not None
    store = open_existing(store_url)
    try:
        spec = await target(store, name, placement, policy, explore)
        if archived is not None:
            start, end, path = archived
            await spool(store, name, start, end, path, lambda rows: show("reading", rows, 0.0))
        return spec, rules
    finally:
        await store.close()


def _placement(config: Path, name: str, *, needed: bool) -> Placement | None:
    from banditmesh.runtime.mesh import load_mesh

    if not needed and not config.exists():
        return None
    mesh = load_mesh(config)
    if name not in mesh.placements:
        known = f"there are: {', '.join(mesh.placements)}"
        raise InvalidArgument(f"{config} has no such placement", field="placement", value=name, hint=known)
    return mesh.placements[name]


def _rules(placement: Placement | None, said: Sequence[str]) -> list[str]:
    """Names of rules; without a placement they are what is said."""
    from banditmesh.replay.of_mesh import rule_name
    from banditmesh.runtime.rule_options import names

    if placement is None:
        return list(dict.fromkeys(said))
    each = [rule for one in said for rule in (names(placement.rules) if one == ALL_RULES else [one])]
    return list(dict.fromkeys(rule_name(placement, one) for one in each))
