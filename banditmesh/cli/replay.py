"""``banditmesh replay``: what would these policies have earned on a logged stream?"""

from __future__ import annotations

import json
import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from banditmesh.cli.plots import check_plot
from banditmesh.runtime.errors import InvalidArgument

if TYPE_CHECKING:
    from banditmesh.ope.interval import Interval

NOT_TO_BE_BELIEVED: Final = 3
"""The exit code of ``--strict``."""


class MethodName(StrEnum):
    """How the log is used."""

    rejection = "rejection"
    simulate = "simulate"
    auto = "auto"
    dr = "dr"
    mrdr = "mrdr"
    dm = "dm"
    switch = "switch"
    dros = "dros"
    ips = "ips"
    clipped_ips = "clipped_ips"
    snips = "snips"
    bounds = "bounds"


def replay(
    log: Annotated[Path, typer.Argument(help="A decision log: JSON lines (also .gz, .bz2, .zst, .xz) or Parquet.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="linucb:alpha=0.02,dense=x0..x9 or a YAML file; once for each policy to compare. Absent: a small set, "
            "and which of it to take."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS[::PARAM,…]",
            help="A saved or published model as it is: a folder, or s3://…, that ends in "
            r"models/PLACEMENT/MODEL\[/VERSION]. PARAMs as in a policy: explore=greedy. Absent: none.",
        ),
    ] = None,
    target_column: Annotated[
        str | None, typer.Option(help="Evaluate the probabilities that each row has under this name. Absent: none.")
    ] = None,
    method: Annotated[
        MethodName | None,
        typer.Option(
            help="rejection: uniform logs. simulate: every candidate's own reward. The others: logged propensities, "
            "auto the one with the smallest interval. Absent: what fits the first row."
        ),
    ] = None,
    limit_matches: Annotated[
        int | None, typer.Option(min=1, help="Stop a policy after so many decisions. Absent: at the end of the log.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each policy, with other draws.")] = 1,
    uniform: Annotated[
        bool, typer.Option("--uniform", help="Rows without a propensity were shown uniformly at random.")
    ] = False,
    reward_model: Annotated[str, typer.Option(help="The policy that predicts rewards for dr and its kin.")] = "linear",
    reward_range: Annotated[
        str | None,
        typer.Option(metavar="LEAST,MOST", help="Rewards that there can be, for intervals. Absent: as the log shows."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 3 when an estimate should not be believed.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the learning curves into this PNG file. Absent: no plot.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Replay a [bold]decision log[/] through policies that learn as they go, and compare what they earn."""
    from banditmesh.bandits.errors import BanditError
    from banditmesh.decisions.spec import parse
    from banditmesh.replay.compared import COMPARED, recommended
    from banditmesh.replay.replay import Options
    from banditmesh.replay.replay import replay as run
    from banditmesh.replay.report import report
    from banditmesh.replay.targets import column, saved

    specs = [parse(text) for text in policy or ()] + [saved(text) for text in model or ()]
    if target_column is not None:
        specs.append(column(target_column))
    chosen_here = not specs
    if chosen_here:
        specs = [parse(text) for text in COMPARED]
    check_plot(plot)
    options = Options(
        method.value if method else None, limit_matches, seeds, uniform, reward_model, _range(reward_range)
    )
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rows]} rows"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("replay", total=None, rows=0)

        def show(rows: int, share: float) -> None:
            progress.update(task, completed=share, total=1.0 if share else None, rows=rows)

        try:
            taken, results = run(log, specs, options, show)
        except BanditError as error:  # such as a reward that the link cannot give
            raise InvalidArgument(f"{log}: a policy cannot learn from it: {error}") from error
    found = [report(runs) for runs in results]
    advice = recommended(found) if chosen_here else None
    if as_json:
        said = {} if advice is None else {"recommended": advice}
        print(json.dumps({"log": str(log), "method": taken, "policies": found, **said}, allow_nan=False))
    else:
        _show(taken, found)
        if advice is not None:
            print(advice)
    for each in found:
        for warning in each.get("warnings", ()):
            print(f"banditmesh: {each['policy']}: {warning}", file=sys.stderr)
    if plot is not None:
        from banditmesh.replay.plot import plot as draw

        draw(results, plot)
    if strict and any(each.get("warnings") for each in found):
        raise typer.Exit(NOT_TO_BE_BELIEVED)


def _range(text: str | None) -> Interval | None:
    from banditmesh.ope.interval import Interval

    if text is None:
        return None
    try:
        least, most = map(float, text.split(","))
    except ValueError:
        least = most = math.nan
    if not (math.isfinite(least) and math.isfinite(most) and least < most):
        raise InvalidArgument("must be two numbers, the smaller first, such as 0,1", field="reward-range", value=text)
    return Interval(least, most)


def _show(method: str, found: list[dict[str, Any]]) -> None:
    console = Console()
    table = Table(
        Column("policy", overflow="fold"),
        "reward per decision",
        "95 % interval",
        "decisions",
        "rows",
        header_style="bold",
    )
    for each in sorted(found, key=lambda each: -(each["reward"] or 0.0)):
        lower, upper = (_digits(bound) for bound in each["interval"])
        reward = _digits(each["reward"])
        table.add_row(escape(each["policy"]), reward, f"{lower} to {upper}", f"{each['matches']:g}", str(each["rows"]))
    console.print(f"Method: {method}")
    console.print(table)
    if "estimators" in found[0]:
        console.print(_estimators(found))
        console.print(_support(found))
    if found[0].get("lists"):
        console.print(_lists(found))
    for each in found:
        if each["unusable_scores"]:
            console.print(escape(f"{each['policy']}: {each['unusable_scores']} scores were not finite and ranked last"))


def _estimators(found: list[dict[str, Any]]) -> Table:
    table = Table(Column("policy", overflow="fold"), "estimator", "value", "95 % interval", header_style="bold")
    for each in found:
        for at, (name, estimate) in enumerate(each["estimators"].items()):
            lower, upper = (_digits(bound) for bound in estimate["interval"])
            taken = " *" if name == each["estimator"] else ""
            policy, last = "" if at else escape(each["policy"]), at == len(each["estimators"]) - 1
            table.add_row(policy, name + taken, _digits(estimate["value"]), f"{lower} to {upper}", end_section=last)
    return table


def _lists(found: list[dict[str, Any]]) -> Table:
    title = "Reward of a whole list ({lists:,} lists, {mean_length:.3g} positions each)".format(**found[0]["lists"])
    table = Table(Column("policy", overflow="fold"), "assumption", "value", "95 % interval", title=title)
    table.header_style, table.title_justify = "bold", "left"
    for each in found:
        estimates = [item for item in each["lists"]["metrics"]["reward"].items() if item[0] != "logged"]
        for at, (assumption, estimate) in enumerate(estimates):
            lower, upper = (_digits(estimate[bound]) for bound in ("lower", "upper"))
            policy, last = "" if at else escape(each["policy"]), at == len(estimates) - 1
            table.add_row(policy, assumption, _digits(estimate["value"]), f"{lower} to {upper}", end_section=last)
    return table


def _support(found: list[dict[str, Any]]) -> Table:
    table = Table(
        Column("policy", overflow="fold"),
        "effective rows",
        "mean weight",
        "largest weight",
        "never shown",
        header_style="bold",
    )
    for each in found:
        support = each["support"]
        table.add_row(
            escape(each["policy"]),
            _digits(support["effective_rows"]),
            _digits(support["mean_weight"]),
            f"{_digits(support['largest_weight'])} (line {support['largest_weight_line']})",
            f"{support['never_shown']:.1%}",
        )
    return table


def _digits(number: float | None) -> str:
    return "?" if number is None else f"{number:.5g}"
