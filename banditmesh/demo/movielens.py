"""Ratings of real people: MovieLens 100k, or a file of the user's own.

MovieLens 100k (Harper & Konstan 2015, "The MovieLens Datasets: History and Context") may be used for research but not
passed on, so it is taken out of a package that carries it, into the cache folder, and never committed.
"""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from banditmesh.local.cache import once

LICENCE = (
    "MovieLens 100k, GroupLens Research, University of Minnesota. "
    "For research; not for commercial use, not to be passed on.\n"
    "F. M. Harper and J. A. Konstan. 2015. The MovieLens Datasets: History and Context. ACM TiiS 5, 4."
)
_PACKAGE = "recbole==1.2.1"
_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_INSIDE = "recbole/dataset_example/ml-100k/"
_COLUMNS = {
    "user": ("user_id:token", "user_id", "userId", "user"),
    "item": ("item_id:token", "item_id", "movieId", "item"),
    "rating": ("rating:float", "rating"),
    "time": ("timestamp:float", "timestamp", "time"),
}


class NoRatings(Exception):
    """The ratings cannot be had or read; the message says what to do."""


@dataclass(frozen=True)
class Film:
    """What is known of a film; empty where it is not."""

    title: str = ""
    genres: tuple[str, ...] = ()
    year: int | None = None


@dataclass(frozen=True)
class Person:
    """What is known of a person; empty where it is not."""

    age: int | None = None
    gender: str = ""
    occupation: str = ""


@dataclass(frozen=True)
class Ratings:
    """Ratings in the order in which they were given.

    Attributes:
        users: Names of the users; ``user`` indexes it.
        items: Names of the films; ``item`` indexes it.
        user: ``int32[n]``.
        item: ``int32[n]``.
        rating: ``float32[n]``, 1 to 5.
        films: By name.
        people: By name.
        origin: Where they come from, with the licence.
    """

    users: list[str]
    items: list[str]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    rating: NDArray[np.float32]
    films: dict[str, Film]
    people: dict[str, Person]
    origin: str

    def __len__(self) -> int:
        return len(self.user)


def movielens(cache: Path) -> Ratings:
    """Return MovieLens 100k, fetched into ``cache`` the first time, by one process while others wait.

    Raises:
        NoRatings: The package that carries it cannot be fetched.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = once("ml-100k", _fetch, cache)
    films = {row["item_id:token"]: _film(row) for row in _table(folder / "ml-100k.item")}
    people = {row["user_id:token"]: _person(row) for row in _table(folder / "ml-100k.user")}
    return read_ratings(folder / "ml-100k.inter", films=films, people=people, origin=LICENCE)


def read_ratings(
    path: Path, *, films: dict[str, Film] | None = None, people: dict[str, Person] | None = None, origin: str = ""
) -> Ratings:
    """Read a table of ratings: tab- or comma-separated, with a header, or without one as ``user item rating
    timestamp``.

    Raises:
        NoRatings: The file cannot be read, or a row is broken; the message names the line.
    """
    rows: list[tuple[float, str, str, float]] = []
    names: dict[str, str] | None = None
    for line, row in _numbered(path):
        names = names or _columns(path, row)
        try:
            rows.append(_rating(row, names))
        except ValueError as error:
            raise NoRatings(f"{path}, line {line}: {error}; a row is user, item, rating, timestamp") from error
    if not rows:
        raise NoRatings(f"{path}: holds no ratings")
    rows.sort(key=lambda row: row[0])
    users, user = np.unique([row[1] for row in rows], return_inverse=True)
    items, item = np.unique([row[2] for row in rows], return_inverse=True)
    return Ratings(
        users.tolist(),
        items.tolist(),
        user.astype(np.int32),
        item.astype(np.int32),
        np.array([row[3] for row in rows], np.float32),
        films or {},
        people or {},
        origin or str(path),
    )


def _rating(row: dict[str, str], names: dict[str, str]) -> tuple[float, str, str, float]:
    """Time, user, item and rating of a row. Raises ValueError, saying what is wrong with it."""
    found = {}
    for meaning, name in names.items():
        if not row.get(name):
            raise ValueError(f"the {meaning} is missing")
        found[meaning] = row[name]
    time_s, rating = float(found["time"]), float(found["rating"])
    if not (math.isfinite(time_s) and math.isfinite(rating)):
        raise ValueError(f"time {found['time']!r} and rating {found['rating']!r} must be finite")
    return time_s, found["user"], found["item"], rating


def _columns(path: Path, row: dict[str, str]) -> dict[str, str]:
    found = {}
    for meaning, names in _COLUMNS.items():
        name = next((name for name in names if name in row), None)
        if name is None:
            raise NoRatings(
                f"{path}: has no column for the {meaning} (one of {', '.join(names)}); there is: {', '.join(row)}"
            )
        found[meaning] = name
    return found


def _table(path: Path) -> Iterator[dict[str, str]]:
    return (row for _, row in _numbered(path))


def _numbered(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows, each with the number of its line. What is beyond the header's columns is left out."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = "\t" if "\t" in first else ","
            headless = first.split(delimiter)[0].strip().isdigit()
            fields = ["user", "item", "rating", "timestamp"] if headless else None
            reader = csv.DictReader(
                file,
                fieldnames=fields,
                delimiter=delimiter,
                quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
            )
            for row in reader:
                yield reader.line_num, {name: value for name, value in row.items() if name is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise NoRatings(f"{path}: cannot be read: {error}") from error


def _film(row: dict[str, str]) -> Film:
    year = row["release_year:token"]
    return Film(
        row["movie_title:token_seq"], tuple(row["class:token_seq"].split()), int(year) if year.isdecimal() else None
    )


def _person(row: dict[str, str]) -> Person:
    return Person(int(row["age:token"]), row["gender:token"], row["occupation:token"])


def _fetch(folder: Path) -> None:
    """Unpack the data into the folder out of the wheel that carries it."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(f"{_PACKAGE} --hash=sha256:{_SHA256}\n")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ]
        done = subprocess.run([*command, "-r", str(wanted), "-d", scratch], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NoRatings(
                f"MovieLens 100k is inside the Python package {_PACKAGE}, which pip could not download; "
                f"with --ratings FILE other ratings are taken.\n{done.stderr.strip()}"
            )
        wheel = next(Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(_INSIDE) and not name.endswith("/"):
                    (folder / Path(name).name).write_bytes(archive.read(name))
