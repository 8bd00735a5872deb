"""Judgements as tables of a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

if TYPE_CHECKING:
    from banditmesh.ope.lists import ListJudgement
    from banditmesh.replay.judgement import Judgement


def show_judgement(found: Judgement, console: Console) -> None:
    """Print a judgement."""
    from banditmesh.replay.judgement import SHOWN_ESTIMATORS

    console.print(f"{escape(found.policy)}, on {found.rows:,} decisions")
    if found.fallback:
        console.print(
            f"Left out: {found.fallback:,} decisions ({found.fallback / (found.fallback + found.rows):.1%} of all) "
            "that the fallback answered, as it would have under any policy"
        )
    if found.gain is not None:
        told = f" (the log tells of {found.gain.told:.0%} of that)" if found.gain.moved else ""
        console.print(
            f"It would make {found.gain.moved:.1%} of them otherwise than under all rules{told}, and earn more:"
        )
        console.print(_of_gain(found))
    table = Table("metric", "estimator", *map(_right, ("value", "95 % interval", "logged")), header_style="bold")
    for metric, judged in found.metrics.items():
        names = [f"best ({judged.best.name})", *SHOWN_ESTIMATORS]
        estimates = [judged.best, *(judged.estimates[name] for name in SHOWN_ESTIMATORS)]
        for at, (name, estimate) in enumerate(zip(names, estimates, strict=True)):
            lower, upper = estimate.interval
            table.add_row(
                "" if at else metric,
                name,
                f"{estimate.value:.5g}",
                f"{lower:.5g} to {upper:.5g}",
                "" if at else f"{judged.logged:.5g}",
                end_section=at == len(names) - 1,
            )
    console.print(table)
    if found.lists is not None:
        console.print(_of_lists(found.lists))
        for assumption, by in next(iter(found.lists.estimates.values())).items():
            if by.caveat:
                console.print(f"* {assumption}: {by.caveat}")
    support = found.support
    console.print(
        f"Effective sample size {support.effective:,.0f} of {found.rows:,}; matched weight {support.mean_weight:.3g} "
        f"(1 when the log supports the policy); largest weight {support.largest:.3g}; contents never shown "
        f"{found.never_shown:.1%}"
    )


def _of_gain(found: Judgement) -> Table:
    """What a policy would earn more without a rule, decision by decision, and whole lists by cascade."""
    assert found.gain is not None
    table = Table("metric", "of", *map(_right, ("more", "95 % interval")), header_style="bold")
    for metric, estimate in found.gain.estimates.items():
        said = [(f"a decision ({estimate.name})", estimate.value, estimate.interval)]
        if found.lists is not None and found.lists.differences is not None:
            of_list = found.lists.differences[metric]["cascade"]
            said.append(("a list (cascade)", of_list.value, of_list.interval))
        for at, (what, value, interval) in enumerate(said):
            row = ("" if at else metric, what, f"{value:+.5g}", f"{interval.lower:+.5g} to {interval.upper:+.5g}")
            table.add_row(*row, end_section=at == len(said) - 1)
    return table


def _of_lists(found: ListJudgement) -> Table:
    title = f"Of a whole list ({found.lists:,} lists, {found.mean_length:.3g} positions each)"
    columns = map(_right, ("value", "95 % interval", "effective contents", "logged"))
    table = Table("sum of", "assumption", *columns, header_style="bold", title=title, title_justify="left")
    for metric, estimates in found.estimates.items():
        for at, (assumption, each) in enumerate(estimates.items()):
            lower, upper = each.interval
            table.add_row(
                "" if at else metric.removesuffix("_rate"),
                f"{assumption} *" if each.caveat else assumption,
                f"{each.value:.5g}",
                f"{lower:.5g} to {upper:.5g}",
                f"{each.effective:,.0f}",
                "" if at else f"{found.logged[metric]:.5g}",
                end_section=at == len(estimates) - 1,
            )
    return table


def _right(name: str) -> Column:
    return Column(name, justify="right")
