"""The log that is converted: its lines, how far they have been read, and what could not be used of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from banditmesh.decompression import BROKEN, decompressed, no_text
from banditmesh.runtime.errors import InvalidArgument, NotFound

Told = Callable[[float], None]
MOST_OF_A_VALUE = 131_072
"""Characters of a value of a CSV: as many as Python's `csv` takes by itself."""
_LINES_A_WORD = 4096
_COMPRESSED = ("", ".gz", ".bz2", ".zst", ".xz")


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
        noted: What was converted, and is not all that the log says, by reason.
    """

    path: Path
    told: Told = lambda share: None
    skipped: dict[str, Skipped] = field(default_factory=dict)
    noted: dict[str, Skipped] = field(default_factory=dict)
    _before: int = 0
    _total: int = 0

    def skip(self, reason: str, where: str) -> None:
        """Count something that cannot be converted."""
        found = self.skipped.setdefault(reason, Skipped(0, where))
        found.count += 1

    def note(self, what: str, where: str) -> None:
        """Count something that is converted, and loses something by it."""
        found = self.noted.setdefault(what, Skipped(0, where))
        found.count += 1

    def find(self, *names: str) -> Path:
        """Return the log itself if it is a file, else the first of these files in its folder, compressed or not.

        Raises:
            NotFound: None of them is there.
        """
        return self.files(*names)[0]

    def files(self, *patterns: str) -> list[Path]:
        """Return the log itself if it is a file, else the files of its folder that the first of these patterns to fit
        any fits, compressed or not, in the order of their numbers.

        Raises:
            NotFound: None is there.
        """
        if not self.path.is_dir() and self.path.exists():  # a pipe too
            return [self.path]
        for pattern in patterns:
            fitting = {each for ending in _COMPRESSED for each in self.path.glob(pattern + ending) if each.is_file()}
            if fitting:
                return sorted(fitting, key=lambda each: _natural(str(each)))
        there = f"is a folder without {' or '.join(patterns)}" if self.path.is_dir() else "does not exist"
        raise NotFound(f"{self.path} {there}", field="log", value=str(self.path))

    def beside(self, *names: str) -> Path | None:
        """Return the first of these files that lies in the log's folder, compressed or not; None when none does."""
        folder = self.path if self.path.is_dir() else self.path.parent
        places = (folder / f"{name}{ending}" for name in names for ending in _COMPRESSED)
        return next((place for place in places if place.is_file()), None)

    def all_lines(self, paths: Sequence[Path]) -> Iterator[Line]:
        """Yield the lines of the files that are the log, one after the other; raises as :meth:`lines`."""
        self._total = sum(path.stat().st_size for path in paths)
        for path in paths:
            yield from self.lines(path)
            self._before += path.stat().st_size

    def lines(self, path: Path, *, main: bool = True, encoding: str = "utf-8") -> Iterator[Line]:
        """Yield the lines of a file, decompressed, without their ends and a byte order mark; ``main``: its progress is
        the log's.

        Raises:
            InvalidArgument: It ends too early, is an archive, or a line is no text.
        """
        size = self._total or path.stat().st_size
        number = 0
        try:
            with path.open("rb") as file, decompressed(file) as plain:
                for number, raw in enumerate(plain, 1):
                    if main and number % _LINES_A_WORD == 0 and size:
                        self.told(min((self._before + file.tell()) / size, 1.0))
                    if number == 1:
                        _check(raw, path)
                        raw = raw.removeprefix(b"\xef\xbb\xbf")
                    yield Line(f"{path}:{number}", raw.decode(encoding).rstrip("\r\n"))
        except UnicodeDecodeError as error:
            message = (
                f"{path} is broken after line {number - 1}: the line is not UTF-8 ({error.reason}); iconv makes it so"
            )
            raise InvalidArgument(message, field="log") from error
        except BROKEN as error:
            raise InvalidArgument(f"{path} is broken after line {number}: {error}", field="log") from error


def _check(head: bytes, path: Path) -> None:
    """Raise InvalidArgument when the first bytes are those of something that has no lines."""
    if head.startswith(b"PAR1"):
        raise InvalidArgument(f"{path} is Parquet; convert reads text: write it as the data set was", field="log")
    if what := no_text(head):
        raise InvalidArgument(f"{path} {what}", field="log")


def _natural(name: str) -> list[tuple[int, str]]:
    """``day_10`` after ``day_9``."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name)]


def time(text: str) -> float | str:
    """Return a time as a decision log has it: a number as one, anything else, which ought to be ISO 8601, as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def number(text: str, what: str) -> float:
    """Read a number. Raises Unusable."""
    try:
        return float(text)
    except ValueError:
        raise Unusable(f"{what} is not a number") from None


def columns(text: str) -> list[str]:
    """The values of a line of CSV; none of an empty one. Raises Unusable."""
    try:
        found = next(csv.reader([text]), [])
    except csv.Error as error:  # a carriage return in the middle, say
        raise Unusable(f"the line is no CSV: {error}") from None
    # The limit of `csv` itself is the whole process', and others set it.
    if any(len(value) > MOST_OF_A_VALUE for value in found):
        raise Unusable(f"the line is no CSV: a value has more than {MOST_OF_A_VALUE} characters")
    return found
