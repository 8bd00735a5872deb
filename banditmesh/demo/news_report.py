"""What the news demo shows: live, as a plot, and as a verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from banditmesh.demo.news_delays import Delays
from banditmesh.demo.news_world import NewsWorld
from banditmesh.demo.report import Examples, delivery, difference, variant_result
from banditmesh.output import output

NEAR, POPULAR = "near", "popular"
VARIANTS: Final = (NEAR, POPULAR)
MOST_DELAY_S: Final = 5.0
WARM_UP: Final = 0.2
"""Share of the day in which nobody knows anything of the readers yet; the plot shows it, the click rates count it
too."""
_NEAR: Final = 0.6
"""A reader whose taste is no farther from an article's audience belongs to its quarter of the town."""


@dataclass(frozen=True)
class Seen:
    """An article on a screen. ``truth``: with which probability the reader clicks it."""

    at_s: float
    variant: str
    reader: int
    article: int
    clicked: bool
    truth: float
    logic: str


@dataclass
class NewsTally:
    """What the readers saw.

    Attributes:
        acknowledged: Variant of each impression that the Event Tracker acknowledged, by impression id.
        published: When the importer had each article, in the town's seconds.
        first_shown: When each was on a screen for the first time.
    """

    acknowledged: dict[bytes, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    nothing: Counter[str] = field(default_factory=Counter)
    published: dict[int, float] = field(default_factory=dict)
    first_shown: dict[int, float] = field(default_factory=dict)
    done: int = 0

    def add(self, seen: Seen) -> None:
        """Note an impression."""
        self.seen.append(seen)
        self.first_shown.setdefault(seen.article, seen.at_s)


class NewsView:
    """The moment, drawn again several times a second."""

    def __init__(self, tally: NewsTally, examples: Examples, delays: Delays, length_s: float) -> None:
        self._tally, self._examples, self._delays, self._length_s = tally, examples, delays, length_s
        self._progress = Progress(TextColumn("the town's day"), BarColumn(40), TimeElapsedColumn())
        self._task = self._progress.add_task("day", total=length_s)

    def __rich__(self) -> RenderableType:
        tally = self._tally
        at_s = tally.seen[-1].at_s if tally.seen else 0.0
        self._progress.update(self._task, completed=min(at_s, self._length_s))
        counts = Table.grid(padding=(0, 3))
        counts.add_row(
            f"screens [bold]{tally.done:,}[/]",
            f"impressions [bold]{len(tally.acknowledged):,}[/]",
            f"articles out [bold]{len(tally.published):,}[/]",
            f"density versions [bold]{len(self._delays.bytes):,}[/]",
            f"waiting for the join [bold]{max(len(tally.acknowledged) - len(self._examples.outcomes), 0):,}[/]",
        )
        return Group(self._progress, counts, results(self._examples))


def results(examples: Examples) -> Table:
    """What each variant earned."""
    table = Table("variant", "readers", "impressions", "click rate", header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for variant in VARIANTS:
        found = variant_result(examples.outcomes, variant)
        table.add_row(variant, f"{found.users:,}", f"{found.impressions:,}", f"{found.click_rate:.2%}")
    return table


def verdict(console: Console, world: NewsWorld, tally: NewsTally, examples: Examples, delays: Delays) -> bool:
    """Print the end of the story; return whether all that was promised came true."""
    console.print(results(examples))
    logics = Counter(each.logic or "fallback" for each in tally.seen)
    console.print(f"Who proposed what was shown: {', '.join(f'{name} {n:,}' for name, n in logics.most_common())}.")
    delivered = delivery(tally.acknowledged, examples.copies)
    found = difference(examples.outcomes, "clicked", VARIANTS)
    waits = [tally.first_shown[each] - at_s for each, at_s in tally.published.items() if each in tally.first_shown]
    quick = float(np.median(waits)) if waits else float("inf")
    breaking = breaking_shares(world, tally)
    console.print(
        f"{_mark(delivered.exact)} {delivered.acknowledged:,} impressions were acknowledged, {delivered.once:,} came "
        f"out as exactly one example; {delivered.missing:,} missing, {delivered.duplicated:,} twice, "
        f"{delivered.unexpected:,} unexpected"
    )
    console.print(
        f"{_mark(found.better)} click rate: near − popular = {found.value:+.4f}, 95 % interval "
        f"[{found.lower:+.4f}, {found.upper:+.4f}]" + ("" if found.better else ": not above 0")
    )
    fast = delays.p95_s <= MOST_DELAY_S
    size = f"{np.median(delays.bytes) / 2**20:.2f} MiB" if delays.bytes else "nothing"
    console.print(
        f"{_mark(fast)} {delays.engines} engines ranked by a click after at most {delays.p95_s:.1f} s in 19 of 20 "
        f"cases (goal: {MOST_DELAY_S:g} s); {len(delays.bytes)} versions, {delays.deltas} of them deltas, {size} each"
    )
    console.print(f"  an article was on a screen {quick:.1f} s after the importer had it (median of {len(waits)})")
    near, popular = (f"{breaking[variant]:.1%}" for variant in VARIANTS)
    console.print(
        f"  breaking news: {near} of what its quarter of the town was shown while it was hot, with `near`; {popular} "
        "with `popular`"
    )
    return delivered.exact and found.better and fast


def breaking_shares(world: NewsWorld, tally: NewsTally) -> dict[str, float]:
    """Of what the readers near breaking news were shown in its first two half-lives, the share that was it, by
    variant."""
    counts = {variant: [0, 0] for variant in VARIANTS}
    for article in np.flatnonzero(world.breaking).tolist():
        quarter = _quarter(world, article)
        begin = world.born_s[article]
        end = begin + 2 * world.life_s[article]
        for each in tally.seen:
            if begin <= each.at_s < end and quarter[each.reader] and each.variant in counts:
                counts[each.variant][0] += each.article == article
                counts[each.variant][1] += 1
    return {variant: hits / total if total else 0.0 for variant, (hits, total) in counts.items()}


def draw(world: NewsWorld, tally: NewsTally, path: Path) -> None:
    """Draw the true click probability of what was shown, and how one piece of breaking news spreads and dies."""
    import matplotlib as mpl  # heavy, and only needed at the very end

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (rates, burst) = plt.subplots(2, 1, figsize=(9, 8), layout="constrained", sharex=True)
    times = np.array([each.at_s for each in tally.seen])
    if len(times):
        edges = np.linspace(0, times.max() + 1e-6, 40)
        middle = (edges[1:] + edges[:-1]) / 2
        for variant, colour in zip(VARIANTS, ("tab:blue", "tab:grey"), strict=True):
            mine = np.array([each.variant == variant for each in tally.seen])
            truth = np.array([each.truth for each in tally.seen])
            rates.plot(middle, _means(times[mine], truth[mine], edges), color=colour, label=variant)
        shown = Counter(each.article for each in tally.seen if world.breaking[each.article])
        if shown:
            article = shown.most_common(1)[0][0]
            quarter = _quarter(world, article)
            is_it = np.array([each.article == article for each in tally.seen], float)
            for inside, style in ((True, "-"), (False, ":")):
                for variant, colour in zip(VARIANTS, ("tab:blue", "tab:grey"), strict=True):
                    mine = np.array([each.variant == variant and quarter[each.reader] == inside for each in tally.seen])
                    where = "its quarter" if inside else "elsewhere"
                    burst.plot(
                        middle,
                        _means(times[mine], is_it[mine], edges),
                        style,
                        color=colour,
                        label=f"{variant}, {where}",
                    )
            burst.axvline(world.born_s[article], color="tab:red", alpha=0.5)
    rates.set(
        ylabel="true click probability of what is shown",
        ylim=(0, None),
        title="What near readers click, and what is popular",
    )
    burst.set(
        xlabel="seconds",
        ylabel="share of screens' places",
        ylim=(0, None),
        title="One piece of breaking news (red: it comes out)",
    )
    for axes in (rates, burst):
        axes.grid(alpha=0.3)
        axes.legend()
    with output(path, "plot") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)


def _means(times: NDArray[np.float64], values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """``float64[len(edges) - 1]``: mean of the values in each span of time; NaN where there is none."""
    total, _ = np.histogram(times, edges, weights=values)
    count, _ = np.histogram(times, edges)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _quarter(world: NewsWorld, article: int) -> NDArray[np.bool_]:
    """``bool[n_readers]``: who lives near the article's audience."""
    near: NDArray[np.bool_] = np.linalg.norm(world.tastes - world.audience[article], axis=1) <= _NEAR
    return near


def _mark(good: bool) -> str:
    return "[green]✔[/]" if good else "[red]✘[/]"
