"""``banditmesh torture``."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from banditmesh.output import check_output

FAILED, INTERRUPTED = 1, 130


def torture(
    minutes: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="How long. One round a fault comes first, 10 to 15 minutes in all; the rest is a run with all mixed, "
            "which kills more than 200 times in 10.",
        ),
    ] = 25.0,
    seed: Annotated[int, typer.Option(min=0, help="Traffic and faults are drawn from it.")] = 1,
    report: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Where to write what was done and found; absent: nowhere. Markdown, "
            "with JSON beside it; JSON alone for *.json.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Only this round; may be given several times. No mixed run. Absent: all."),
    ] = None,
    mixed_only: Annotated[
        bool, typer.Option("--mixed-only", help="No round for each fault: all mixed for the whole time.")
    ] = False,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep data and logs in this folder; absent: a temporary one.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Visits a second.")] = 120.0,
    rounds: Annotated[bool, typer.Option("--list", help="Show the rounds and end.")] = False,
) -> None:
    """Let everything die, stall, lie and fill up under traffic, and see whether anything is lost, doubled or wrong.

    Starts Kafka, Redis, an S3 store and two replicas of each service, in several shapes (three brokers, a replica, a
    Cluster), and does to them what production does over the years: kills, zombies, data loss, hanging networks, wrong
    clocks, poison, full disks, mixed releases. An oracle of its own reads the topics and says what each example must
    be; what was learned is compared with a learner that nobody has disturbed. Exit code 0: zero findings everywhere;
    1: something was found, or it could not go on; 130: interrupted.
    """
    from banditmesh.runtime.errors import InvalidArgument
    from banditmesh.signals import interrupt_on_signals
    from banditmesh.torture.faults import BY_NAME, FAULTS
    from banditmesh.torture.report import RoundResult, summary
    from banditmesh.torture.run import Options, Torture

    console = Console()
    if rounds:
        for fault in FAULTS:
            console.print(f"{fault.name:20} {fault.number:2}  {fault.what}", highlight=False)
        return
    unknown = [name for name in only or () if name not in BY_NAME]
    if unknown:
        raise InvalidArgument(f"there are: {', '.join(BY_NAME)}", field="--only", value=unknown[0])
    if report is not None:
        check_output(report, "report")
    wanted = [fault for fault in FAULTS if fault.name in only] if only else FAULTS
    folder = (directory or Path(tempfile.mkdtemp(prefix="banditmesh-torture-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    interrupt_on_signals(lambda: None)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that Kafka is away is what we do to it
    with console.status("starting") as status:

        def done(result: RoundResult) -> None:
            console.print(
                f"{result.name}: {result.impressions:,} impressions, {result.kills} kills, {result.seconds:.0f} s, "
                f"found {summary(result.findings)}",
                highlight=False,
            )
            if report is not None:
                run.report.write(report)

        options = Options(folder, minutes, seed, wanted, rate, rounds=not mixed_only, mixed=mixed_only or not only)
        run = Torture(options, lambda what: status.update(Text(what)), done)
        try:
            _run(run)
        except KeyboardInterrupt:
            run.report.interrupted = True
    found = run.report
    if report is not None:
        found.write(report)
        console.print(f"The report: {report}", highlight=False, markup=False)
    console.print(
        f"{found.impressions:,} impressions in {len(found.rounds)} rounds, {found.chronicle.kills} SIGKILLs, "
        f"{found.seconds / 60:.1f} minutes, seed {seed}. Found: {summary(found.findings)}.",
        style="green" if found.good else "red",
        highlight=False,
    )
    if found.broke:
        console.print(Text(f"It could not go on: {found.broke}", "red"), soft_wrap=True)
    if directory is None and found.good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"Logs and data: {folder}", highlight=False, markup=False)
    if not found.good:
        raise typer.Exit(INTERRUPTED if found.interrupted else FAILED)


def _run(run: object) -> None:
    import asyncio

    from banditmesh.torture.run import Torture

    assert isinstance(run, Torture)
    asyncio.run(run.run())
