"""The figures beside their goals, in Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from benchmarks.stream.joiner import CATCH_UP_PER_S
from benchmarks.stream.stage import Figures

LEARNER_GOALS = {"linucb": 20_000, "linear": 20_000, "fm": 8_000}


def markdown(figures: Mapping[str, Figures]) -> str:
    """The whole page."""
    return "\n".join(_lines(figures)) + "\n"


def _lines(figures: Mapping[str, Figures]) -> Iterator[str]:
    yield "# How fast the stream is"
    yield ""
    yield (
        "`make bench-stream`. Each service runs as a process of its own, on one core that it has for itself; Kafka, "
        "Valkey and the load have the others. The bare client runs on the same core, after it, in the same run; it is "
        f"aiokafka as its documentation uses it. This machine has {os.cpu_count()} cores: servers and load share "
        "what is left."
        + (f" Load average before it began: {found['load_before']:.1f}." if (found := figures.get("machine")) else "")
    )
    yield ""
    yield "| what | measured | goal | |"
    yield "|---|---|---|---|"
    yield from _rows(figures)
    yield ""
    yield from _memory(figures)


def _rows(figures: Mapping[str, Figures]) -> Iterator[str]:
    if found := figures.get("tracker"):
        yield _row(
            "tracker, acknowledged events/s (calls of 500)",
            f"{found['per_second']:,.0f}; the bare idempotent `acks=all` producer {found['bare_per_second']:,.0f}: "
            f"{found['ratio']:.2f} ×; {found['cpu_us']:.0f} CPU µs an event, the bare one's {found['bare_cpu_us']:.0f}",
            "≥ 0.6 ×",
            found["ratio"] >= 0.6,
        )
        yield _row(
            "tracker, a call of 50 events at half load",
            f"p50 {found['half_load_p50_ms']:.0f} ms, p99 {found['half_load_p99_ms']:.0f} ms",
            "(shown)",
            None,
        )
    if found := figures.get("joiner"):
        yield _row(
            "joiner, examples/s through the transaction",
            f"{found['per_second']:,.0f}; a bare consume–produce loop {found['bare_per_second']:,.0f}: "
            f"{found['ratio']:.2f} ×; {found['cpu_us']:.0f} CPU µs an example, start included, the bare one's "
            f"{found['bare_cpu_us']:.0f}",
            "≥ 10,000 or 0.4 ×",
            found["per_second"] >= 10_000 or found["ratio"] >= 0.4,
        )
        yield _row(
            "joiner, catch-up after an outage",
            f"{CATCH_UP_PER_S:,} impressions/s (5 × LINE's mean) take {found['cores_for_catch_up']} cores at that rate",
            "with how many cores",
            None,
        )
    if found := figures.get("memory"):
        yield _row("joiner, memory with a 10-minute window", _flat(found), "flat", _growth(found) < 1.1)
    for policy, goal in LEARNER_GOALS.items():
        if each := figures.get("learner", {}).get(policy):
            yield _row(
                f"learner, `{policy}`, examples/s from Kafka to the snapshot",
                f"{each['per_second']:,.0f}; {each['cpu_us']:.0f} CPU µs an example, the start included",
                f"≥ {goal:,}",
                each["per_second"] >= goal,
            )
    if found := figures.get("archive"):
        yield _row(
            "archive, rows/s a core", f"{found['rows_per_second']:,.0f}", "≥ 50,000", found["rows_per_second"] >= 50_000
        )
        yield _row(
            "archive, bytes an example at rest",
            f"{found['bytes_per_example']:.0f}",
            "≤ 80",
            found["bytes_per_example"] <= 80,
        )
    if found := figures.get("latency"):
        yield _row(
            "click → seen by the user's next selection",
            f"p50 {found['click_seen_p50_ms']:.0f} ms, p99 {found['click_seen_p99_ms']:.0f} ms",
            "p99 ≤ 1 s",
            found["click_seen_p99_ms"] <= 1000,
        )
        yield _row(
            "window's end → an engine that knows",
            f"mean {found['window_end_mean_s']:.1f} s, most {found['window_end_most_s']:.1f} s, "
            f"published every {found['publish_every_s']:g} s",
            "≤ publish interval + 5 s",
            found["window_end_most_s"] <= found["publish_every_s"] + 5,
        )


def _row(what: str, measured: str, goal: str, reached: bool | None) -> str:
    return f"| {what} | {measured} | {goal} | {'' if reached is None else 'yes' if reached else '**no**'} |"


def _growth(found: Figures) -> float:
    """Resident memory at the end over that at half time: until then buffers and caches fill that have a bound."""
    seen = [mb for _, mb, _ in found["rss_mb"]]
    return float(seen[-1] / seen[len(seen) // 2])


def _flat(found: Figures) -> str:
    seen = found["rss_mb"]
    after = ", ".join(f"{mb} MB after {at} s" for at, mb, _ in (seen[0], seen[len(seen) // 2], seen[-1]))
    return f"{after}, fed {found['fed_per_second']:,.0f}/s"


def _memory(figures: Mapping[str, Figures]) -> Iterator[str]:
    """Two paragraphs, as far as they were measured."""
    backlog, fed = figures.get("joiner"), figures.get("memory")
    if backlog or fed:
        yield "## The joiner's memory over time"
    if fed:
        yield ""
        yield (
            "What waits for its window waits in Kafka: the joiner stops fetching when it holds so much of a partition. "
            f"With a window of ten minutes, fed {fed['fed']:,} impressions in {fed['minutes']:g} minutes, of which "
            f"{fed['joined']:,} were joined meanwhile (it had {fed['cores']:.2f} of a core; in the end {_lag(fed)} "
            "records were not read yet): " + ", ".join(f"{mb} MB at {at} s" for at, mb, _ in fed["rss_mb"]) + "."
        )
    if backlog:
        yield ""
        yield f"While it works off a backlog: {', '.join(map(str, backlog['backlog_rss_mb']))} MB."


def _lag(fed: Figures) -> str:
    return ", ".join(f"{records:,} of stream `{name}`" for name, records in fed["lag"].items())
