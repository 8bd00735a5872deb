"""The log that is converted: its lines, how far they have been read, and what could not be used of them."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from banditmesh.runtime.errors import InvalidArgument, NotFound

Told = Callable[[float], None]
_LINES_A_WORD = 4096


class Line(NamedTuple):
    """One line, without its end.

    Attributes:
        where: File and line, for messages.
        text: What it says.
    """

    where: str
    text: str


class Unusable(Exception):
    """A decision cannot be made of this; ``args[0]`` says why, in few words that can be counted."""


@dataclass
class Skipped:
    """What could not be converted for one reason.

    Attributes:
        count: How many decisions.
        first: Where the first of them stands.
    """

    count: int
    first: str


@dataclass
class Log:
    """A log to be converted.

    Attributes:
        path: A file, or the folder of a data set.
        told: Called now and then with the share of the main file that has been read.
        skipped: What could not be converted, by reason.
    """

    path: Path
    told: Told = lambda share: None
    skipped: dict[str, Skipped] = field(default_factory=dict)

    def skip(self, reason: str, where: str) -> None:
        """Count something that cannot be converted."""
        found = self.skipped.setdefault(reason, Skipped(0, where))
        found.count += 1

    def find(self, *names: str) -> Path:
        """Return the log itself if it is a file, else the first of these files in its folder.

        Raises:
            NotFound: None of them is there.
        """
        found = self.path if self.path.is_file() else self.beside(*names)
        if found is None:
            there = f"is a folder without {' or '.join(names)}" if self.path.is_dir() else "does not exist"
            raise NotFound(f"{self.path} {there}", field="log", value=str(self.path))
        return found

    def beside(self, *names: str) -> Path | None:
        """Return the first of these files that lies in the log's folder, None when none does."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return next((folder / name for name in names if (folder / name).is_file()), None)

    def lines(self, path: Path, *, main: bool = True, encoding: str = "utf-8") -> Iterator[Line]:
        """Yield the lines of a file, gzipped or by bzip2 or not; ``main``: its progress is the log's.

        Raises:
            InvalidArgument: It ends too early, or a line is no text.
        """
        size = path.stat().st_size
        number = 0
        try:
            with path.open("rb") as file, _decompressed(file) as plain:
                for number, raw in enumerate(plain, 1):
                    if main and number % _LINES_A_WORD == 0 and size:
                        self.told(min(file.tell() / size, 1.0))
                    yield Line(f"{path}:{number}", raw.decode(encoding).rstrip("\r\n"))
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{path} is broken after line {number}: {error}", field="log") from error


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    head = file.read(3)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        return gzip.open(file)  # type: ignore[return-value] # it is read as any file
    if head == b"BZh":
        return bz2.BZ2File(file)
    return file


def number(text: str, what: str) -> float:
    """Read a number. Raises Unusable."""
    try:
        return float(text)
    except ValueError:
        raise Unusable(f"{what} is not a number") from None
