"""Names: which folder a row is in, and which rows a file has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import quote, unquote

Kind = Literal["examples", "decisions"]
KINDS: Final[tuple[Kind, ...]] = ("examples", "decisions")
HOUR: Final = timedelta(hours=1)
INDEX: Final = "_index.json"
"""Begins with an underscore: what reads whole folders passes over such names."""
_FOLDER = re.compile(
    r"archive/(?P<kind>examples|decisions)/placement=(?P<placement>[^/]+)/dt=(?P<day>\d{4}-\d\d-\d\d)/hour=(?P<hour>\d\d)/"
)
_RANGE = re.compile(
    r"(?P<kind>examples|decisions)-(?P<log>[0-9a-f]{8})-p(?P<partition>\d{5})-(?P<start>\d{20})-(?P<end>\d{20})\.parquet"
)

_COMPACTED = re.compile(r"compact-[0-9a-f]{32}\.parquet")


@dataclass(frozen=True, order=True)
class Folder:
    """An hour of a placement.

    Attributes:
        kind: What its rows are.
        placement: As mesh.yaml names it.
        hour: Its begin, in UTC.
    """

    kind: Kind
    placement: str
    hour: datetime

    @property
    def prefix(self) -> str:
        """Its keys' beginning, with the slash."""
        return f"{placement_prefix(self.kind, self.placement)}dt={self.hour:%Y-%m-%d}/hour={self.hour:%H}/"

    @property
    def index_key(self) -> str:
        """Where its index is, if it has one."""
        return self.prefix + INDEX


@dataclass(frozen=True, order=True)
class Range:
    """Offsets of one partition of one log.

    Attributes:
        log: Names the partition of this very topic (`runtime.kafka.identity.log_number`).
        partition: Its number in the topic.
        start: The first offset.
        end: The one after the last.
    """

    log: int
    partition: int
    start: int
    end: int

    def file_name(self, kind: Kind) -> str:
        """The name that a file with rows of this range has, in every folder."""
        return f"{kind}-{self.log:08x}-p{self.partition:05d}-{self.start:020d}-{self.end:020d}.parquet"


def placement_prefix(kind: Kind, placement: str) -> str:
    """The beginning of all keys of a placement, with the slash."""
    return f"archive/{kind}/placement={quote(placement, safe='')}/"


def day_prefix(kind: Kind, placement: str, day: datetime) -> str:
    """The beginning of all keys of a day of a placement, with the slash."""
    return f"{placement_prefix(kind, placement)}dt={day:%Y-%m-%d}/"


def state_key(kind: Kind, log: int, partition: int) -> str:
    """Where it stands how far a partition is archived."""
    return f"{state_prefix(kind)}{log:08x}-p{partition:05d}.json"


def state_prefix(kind: Kind) -> str:
    """The beginning of the keys of all states."""
    return f"archive/state/{kind}/"


def folder_of(key: str) -> Folder | None:
    """The folder that a key is in; None when it is in none of the archive's."""
    found = _FOLDER.match(key)
    if found is None:
        return None
    try:
        hour = datetime.strptime(f"{found['day']} {found['hour']}", "%Y-%m-%d %H").replace(tzinfo=UTC)
    except ValueError:  # no day of the calendar: somebody else's folder
        return None
    kind: Kind = "examples" if found["kind"] == "examples" else "decisions"
    return Folder(kind, unquote(found["placement"]), hour)


def range_of(name: str) -> Range | None:
    """The range that a file's name says; None for a compacted file, which has several."""
    found = _RANGE.fullmatch(name)
    return found and Range(int(found["log"], 16), *(int(found[each]) for each in ("partition", "start", "end")))


def compacted_name(unique: str) -> str:
    """The name of a compacted file; ``unique``: 32 hexadecimal digits."""
    return f"compact-{unique}.parquet"


def is_compacted(name: str) -> bool:
    """Whether a file's name is that of a compacted one."""
    return _COMPACTED.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Whether the archive makes files of this name: what lies beside them is somebody else's, and stays as it is."""
    return _RANGE.fullmatch(name) is not None or is_compacted(name)
