"""What the demo shows while it runs."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from banditmesh.demo.report import LEARNED, RANDOM, Delivery, Difference, Examples, variant_result
from banditmesh.demo.visits import Tally


class LiveView:
    """Counts of the moment, drawn again several times a second.

    Args:
        tally: What the visitors see; the visits change it.
        examples: What has come out; the reader changes it.
        wanted: How many visits there will be.
    """

    def __init__(self, tally: Tally, examples: Examples, wanted: int) -> None:
        self._tally, self._examples = tally, examples
        self._progress = Progress(
            TextColumn("visits"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        )
        self._task = self._progress.add_task("visits", total=wanted)

    def __rich__(self) -> RenderableType:
        tally, examples = self._tally, self._examples
        self._progress.update(self._task, completed=tally.done)
        counts = Table.grid(padding=(0, 3))
        counts.add_row(
            f"impressions [bold]{len(tally.acknowledged):,}[/]",
            f"clicks [bold]{tally.reactions['click']:,}[/]",
            f"mutes [bold]{tally.reactions['mute']:,}[/]",
            f"no content [bold]{sum(tally.nothing.values()):,}[/]",
            f"waiting for the join [bold]{max(len(tally.acknowledged) - len(examples.outcomes), 0):,}[/]",
            f"model version [bold]{examples.model_versions.get(LEARNED, 0)}[/]",
        )
        return Group(self._progress, counts, results_table(examples))


def results_table(examples: Examples) -> Table:
    """Return what each variant earned."""
    table = Table("variant", "people", "impressions", "click rate", "mean reward", header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for variant in (LEARNED, RANDOM):
        result = variant_result(examples.outcomes, variant)
        table.add_row(
            variant,
            f"{result.users:,}",
            f"{result.impressions:,}",
            f"{result.click_rate:.2%}",
            f"{result.mean_reward:.4f}",
        )
    return table


def verdict(
    console: Console, delivered: Delivery, differences: dict[str, Difference], examples: Examples, tally: Tally
) -> bool:
    """Print the end of the story; return whether all that was promised came true."""
    console.print(results_table(examples))
    console.print(
        f"What the visitors did: {_counts(tally.reactions)}. Empty slots: {_counts(tally.nothing) or 'none'}."
    )
    console.print(f"Where contents came from: {_counts(tally.origins)}.")
    console.print(
        f"{_mark(delivered.exact)} {delivered.acknowledged:,} impressions were acknowledged, {delivered.once:,} came "
        f"out as exactly one example; {delivered.missing:,} missing, {delivered.duplicated:,} twice, "
        f"{delivered.unexpected:,} unexpected"
    )
    for name, found in differences.items():
        console.print(
            f"{_mark(found.better)} {name}: learned − random = {found.value:+.4f}, 95 % interval "
            f"[{found.lower:+.4f}, {found.upper:+.4f}]" + ("" if found.better else ": not above 0")
        )
    return delivered.exact and all(found.better for found in differences.values())


def _mark(good: bool) -> str:
    return "[green]✔[/]" if good else "[red]✘[/]"


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))
