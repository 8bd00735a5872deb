"""The tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.experiments.alarms import Alarms, Cuped, Ratios
from benchmarks.experiments.power import Power


def report(
    found: Mapping[str, Alarms],
    curves: Sequence[Power],
    before: Cuped,
    ratio: Ratios,
    whole: float,
    experiments: int,
    looks: int,
) -> str:
    """The whole file."""
    rows = [f"| {name} | {each.sequence:.1%} | {each.peeked:.1%} | {each.once:.1%} |" for name, each in found.items()]
    powers = [
        f"| {each.lift:+.0%} | {each.fixed:.0%} | {each.sequence:.0%} | {each.stopped:.0%} | {each.saved:.0%} |"
        for each in curves
    ]
    return f"""# Experiments

Written by `make bench-experiments`. What the numbers mean, and the equations:
[docs/experiments.md](../docs/experiments.md).

## Nothing differs, and somebody looks all the time

{experiments} A/A tests a world, {looks} looks at each. Nominal is 5 %. An alarm is a claim of a difference at any look.

| world | confidence sequence | a fixed test, peeked at | a fixed test, asked once at the end |
|---|---|---|---|
{chr(10).join(rows)}

Through the tally and the report, people hashed into 1 024 buckets, 20 looks: {whole:.1%} false alarms.

The sample-ratio test at 5 %, 100 looks: {ratio.false:.1%} false alarms. A loss of 2 % of one variant's users is found
(at 0.1 %, as the report does) after {ratio.users:,.0f} users, the median.

## What it costs

A click rate of 10 %, {looks} looks to a horizon of {looks * 600:,} impressions of both variants. *fixed*: a z-test
of the same size that is asked once, at the horizon. *sequence*: found at or before it, while looking all the time.

| lift | fixed | sequence | it took, of the horizon | an experiment that is ended when it says so takes |
|---|---|---|---|---|
{chr(10).join(powers)}

A fixed test finds more at its horizon, and may be asked nothing before it; large differences end early.

## CUPED

A pre-period as long as the experiment, people whose click rates differ (Beta(1, 4), 10 impressions):
{before.left:.0%} of the variance is left; the difference is off by {before.bias:+.2f} of its standard errors.
"""
