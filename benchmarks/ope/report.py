"""The tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.ope.coverage import Coverage, Covered

GOAL = 0.93
_INTRODUCTION = """\
Made by `make bench-ope`: {logs} logs of each kind, whose truth is known. A cell is the share of the logs, in %, in
which the interval of 95 % holds the truth, and its median width. A share below 93 is bold. A share of 95 among 500
logs has a standard error of 1. Reward models are cross-fitted on the log itself.

The worlds are in `benchmarks/ope/worlds.py`. Most evaluate a policy that takes four arms with .1, .1, .2, .6: *mild*
logs showed them with .4, .3, .2, .1, *heavy* ones with .97, .01, .01, .01. In *contexts* both policies are softmaxes
over ten arms and prefer different ones. The last four logs were written by a policy that was itself learning; there a
uniform policy is evaluated.
"""
_RIVALS = """\
What the interval was chosen among (`benchmarks/ope/rivals.py` names the sources). Betting and empirical Bernstein
intervals are never too short, for any number of rows, and pay for it where rows are many and mild. The stabilised
one is made for the last four logs, with the deviation of the terms so far, which is all that a log tells of it.
"""


def report(found: Mapping[str, Coverage], logs: int) -> str:
    """Coverage in % and median width, world by world."""
    first = next(iter(found.values()))
    lines = [
        "# Off-policy evaluation: do the intervals hold the truth?",
        "",
        _INTRODUCTION.format(logs=logs),
        "## Estimators",
        "",
        "| log | effective rows | truth |" + "".join(f" {name} |" for name in first.ours),
        "|---|---|---|" + "---|" * len(first.ours),
    ]
    for name, world in found.items():
        cells = "".join(f" {_cell(each)} |" for each in world.ours.values())
        lines.append(f"| {name} | {world.effective:.0f} | {world.value:.3g} |{cells}")
    least = min((each.share, name) for world in found.values() for name, each in world.ours.items())
    lines += [
        "",
        f"The least share is {least[0]:.1%} ({least[1]}); the goal is {GOAL:.0%}.",
        "",
        "## Other intervals for IPS",
        "",
        _RIVALS,
        "| log | ours |" + "".join(f" {name} |" for name in first.rivals),
        "|---|---|" + "---|" * len(first.rivals),
    ]
    for name, world in found.items():
        cells = "".join(f" {_cell(world.rivals[rival])} |" if rival in world.rivals else " |" for rival in first.rivals)
        lines.append(f"| {name} | {_cell(world.ours['ips'])} |{cells}")
    return "\n".join(lines) + "\n"


def _cell(each: Covered) -> str:
    share = f"{100 * each.share:.0f}"
    return f"{share if each.share >= GOAL else f'**{share}**'} ({each.width:.2g})"
