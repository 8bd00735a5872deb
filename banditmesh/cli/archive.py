"""``banditmesh archive``: what the mesh has learned from, in the store."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from banditmesh.archive.layout import Kind
    from banditmesh.runtime.store import Store

T = TypeVar("T")
_YEARS: Final = range(1970, 9000)
app = typer.Typer(
    help="Look after the [bold]archive[/]: compact, expire, erase a user, list its files. See docs/archive.md.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
StoreUrl = Annotated[
    str, typer.Option("--store", envvar="BANDITMESH_STORE", help="s3://bucket/prefix?…, or file:///folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def moment(text: str, name: str) -> datetime:
    """The time of an option: ISO 8601, UTC without a zone; or how long ago, such as 7d. Raises InvalidArgument."""
    from banditmesh.bandits.durations import seconds

    with suppress(ValueError):
        return datetime.now(UTC) - timedelta(seconds=seconds(text))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(
            "must be a time like 2026-11-29T14:00:00Z or 2026-11-29, or how long ago, like 7d", field=name, value=text
        ) from None
    try:
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except OverflowError:
        found = datetime.min.replace(tzinfo=UTC)
    if not _YEARS.start <= found.year < _YEARS.stop:
        raise InvalidArgument(
            f"must be a time of the years {_YEARS.start} to {_YEARS.stop - 1}", field=name, value=text
        )
    return found


def between(since: str, until: str) -> tuple[datetime, datetime]:
    """The times of --from and --to. Raises InvalidArgument, also where nothing lies between them."""
    end = moment(until, "--to")  # before --from is read: what is `0s` ago moves on
    start = moment(since, "--from")
    if start >= end:
        raise InvalidArgument("must be before --to", field="--from", value=since)
    return start, end


def demand_known(wanted: Sequence[str] | None, known: Sequence[str], option: str = "--placement") -> None:
    """Raises InvalidArgument for a placement of which there is nothing."""
    for each in wanted or ():
        if each not in known:
            hint = f"there are: {', '.join(known) or 'none yet'}"
            raise InvalidArgument("the archive has nothing of it", field=option, value=each, hint=hint)


def demand_whole(broken: Collection[str], what: str) -> None:
    """Name the files that cannot be read, and end with 1 if there are any."""
    for key in sorted(broken):
        print(f"banditmesh: {key} cannot be read: {what}", file=sys.stderr)
    if broken:
        raise typer.Exit(1)


def span(text: str, name: str) -> timedelta:
    """The length of time of an option, such as 7d. Raises InvalidArgument."""
    from banditmesh.bandits.durations import seconds

    try:
        return timedelta(seconds=seconds(text))
    except ValueError as error:
        raise InvalidArgument(str(error), field=name, value=text) from None


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A line on standard error, where that is a terminal."""
    errors = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(what, total=1)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def with_store(url: str, work: Callable[[Store], Awaitable[T]], *, make: bool = False) -> T:
    """Do something with a store, and close it. Ctrl-C ends it cleanly: everything here can be begun again. ``make``: a
    folder that is not there is made; else it is taken for a typing error."""
    from banditmesh.runtime.store import open_existing, open_store

    async def run() -> T:
        store = open_store(url) if make else open_existing(url)
        try:
            # Not pinged: that asks of a folder whether we may write there, and who reads need not.
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


@app.command("compact")
def compact(
    store: StoreUrl,
    settled_after: Annotated[
        str, typer.Option(help="How long after its end an hour is compacted; later examples get files of their own.")
    ] = "2h",
    as_json: Json = False,
) -> None:
    """Make few large files of the many small ones of each hour.

    May be stopped and begun again; run it every hour or so. Readers that go by `banditmesh archive files`, as all of
    ours do, see each row once at any moment; who reads all files as they are sees rows of an hour twice for the seconds
    between writing the large file and deleting the small ones.
    """
    from banditmesh.archive.compact import Compacted
    from banditmesh.archive.compact import compact as run
    from banditmesh.archive.layout import KINDS

    now = datetime.now(UTC)
    settled = span(settled_after, "--settled-after")

    async def all_kinds(given: Store) -> dict[str, Compacted]:
        return {kind: await run(given, kind, now, settled_after=settled, told=told) for kind in KINDS}

    with progress("hours") as told:
        found = with_store(store, all_kinds)
    if as_json:
        print(json.dumps({kind: vars(each) for kind, each in found.items()}))
    else:
        for kind, each in found.items():
            became = f"{each.files_before:,} files of {each.folders:,} hours became {each.files_after:,}"
            left = f"; {each.contended:,} hours are rewritten by somebody else, and left" if each.contended else ""
            young = f"; {each.unsettled:,} hours wait: not over, or less than {settled_after} ago"
            wait = young if each.unsettled else ""
            print(f"{kind}: {became}, {each.rows:,} rows{left}{wait}")
    demand_whole([key for each in found.values() for key in each.broken], "its hour is left as it is")


@app.command("expire")
def expire(
    store: StoreUrl,
    keep: Annotated[
        str | None, typer.Option(help="Delete hours older than this, such as 400d. Absent: archive.keep of mesh.yaml.")
    ] = None,
    config: Annotated[
        Path, typer.Option(envvar="BANDITMESH_CONFIG", help="mesh.yaml, for archive.keep where --keep is absent.")
    ] = Path("mesh.yaml"),
    as_json: Json = False,
) -> None:
    """Delete the hours that are older than archive.keep."""
    from banditmesh.archive.expire import expire as run
    from banditmesh.runtime.mesh import load_mesh

    now = datetime.now(UTC)
    if keep is not None:
        kept = span(keep, "--keep")
    else:
        configured = load_mesh(config).archive.keep
        if configured is None:
            print("archive.keep is not set in mesh.yaml, and --keep is not given: everything stays")
            return
        kept = timedelta(seconds=configured)
    with progress("hours") as told:
        done = with_store(store, lambda each: run(each, kept, now, told=told))
    print(json.dumps(vars(done)) if as_json else f"deleted {done.folders:,} hours, {done.files:,} files")


@app.command("forget")
def forget(
    user: Annotated[str, typer.Argument(help="The user's id, as the app gives it.")],
    store: StoreUrl,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="BANDITMESH_ARCHIVE_KEY",
            help="The key of the pseudonyms, with archive.user_ids: keyed. Absent: ids are plain.",
        ),
    ] = None,
    config: Annotated[
        Path, typer.Option(envvar="BANDITMESH_CONFIG", help="mesh.yaml, for archive.user_ids; may be absent.")
    ] = Path("mesh.yaml"),
    as_json: Json = False,
) -> None:
    """Erase a user: rewrite every file that holds the user, and let nothing older of the user come in any more.

    Each file is replaced as a whole under its name, so no reader sees a row twice or misses others. May be stopped and
    begun again. What the topics hold of the user goes by their retention; models hold sums over all users, no rows.
    """
    from banditmesh.archive.forget import forget as run
    from banditmesh.archive.pseudonym import pseudonyms
    from banditmesh.runtime.mesh import load_mesh

    if not user:
        raise InvalidArgument("is empty", field="USER")
    if key is None and config.exists() and load_mesh(config).archive.user_ids == "keyed":
        raise FailedPrecondition(
            f"{config} says archive.user_ids: keyed, so the user can only be found with the key",
            hint="set BANDITMESH_ARCHIVE_KEY",
        )
    # What was archived before user_ids was changed has the other kind of id.
    users = {user} if key is None else {user, pseudonyms(key)(user)}
    until_ms = int(datetime.now(UTC).timestamp() * 1000)
    with progress("hours") as told:
        done = with_store(store, lambda each: run(each, users, until_ms, told=told))
    said = {**vars(done), "broken": sorted(done.broken)}
    print(json.dumps(said) if as_json else f"erased {done.rows:,} rows from {done.files:,} files")
    demand_whole(done.broken, "whether the user is in it is not known")


@app.command("files")
def files(
    store: StoreUrl,
    placement: Annotated[str, typer.Argument(help="Whose files.")],
    since: Annotated[str, typer.Option("--from", help="2026-11-29T14:00:00Z, 2026-11-29, or how long ago: 7d.")],
    until: Annotated[str, typer.Option("--to", help="The same; what is later is left out.")] = "0s",
    kind: Annotated[str, typer.Option(help="examples or decisions.")] = "examples",
) -> None:
    """List the files that count, one address a line: exactly those with each row once, for Spark and DuckDB to read.

    Files hold whole hours.
    """
    from banditmesh.archive.export import placements
    from banditmesh.archive.reader import folders

    which = checked_kind(kind)
    start, end = between(since, until)

    async def listed(given: Store) -> list[str]:
        demand_known([placement], await placements(given, which), "PLACEMENT")
        root = given.location.partition("?")[0].rstrip("/")
        found = await folders(given, placement, start, end, which)
        return [f"{root}/{folder.prefix}{name}" for folder, names in found.items() for name in names]

    for address in with_store(store, listed):
        print(address)


def checked_kind(kind: str) -> Kind:
    """The kind of that name. Raises InvalidArgument."""
    from banditmesh.archive.layout import KINDS

    for known in KINDS:
        if kind == known:
            return known
    raise InvalidArgument(f"must be {' or '.join(KINDS)}", field="--kind", value=kind)
