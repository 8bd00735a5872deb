"""MovieLens ratings: 100k (``u.data``, ``u.item``, ``u.user``), 1M (``ratings.dat`` …), later ones (``ratings.csv`` …),
and RecBole's ``ml-100k.inter``. A rating is a decision with one candidate; 4 and more earn 1, less earns 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from banditmesh.convert.log import Line, Log, Unusable, columns, number, time
from banditmesh.runtime.errors import InvalidArgument

Row = dict[str, Any]
LIKED_FROM = 4.0
_GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)


def convert(log: Log) -> Iterator[tuple[str, Row]]:
    """Yield the decisions with their places."""
    path = log.find("u.data", "ratings.dat", "ratings.csv", "rating.csv", "*.inter")
    films, people = _films(log), _people(log)
    for where, text in log.lines(path):
        try:
            values = _values(text)
            if not values or values[0] in ("userId", "user_id:token"):
                continue
            if len(values) < 3:
                raise Unusable("fewer than three columns")
            user, film, rating = values[:3]
            row: Row = {
                "user": user,
                "context": people.get(user, {}),
                "candidates": [{"id": film, "features": films.get(film, {})}],
                "shown": 0,
                "reward": 1.0 if number(rating, "a rating") >= LIKED_FROM else 0.0,
            }
            if len(values) > 3:
                row["t"] = time(values[3])  # Kaggle's edition has 2005-04-02 23:53:47
        except Unusable as error:
            log.skip(str(error), where)
        else:
            yield where, row


def _values(text: str) -> list[str]:
    if "::" in text:
        return text.split("::")
    return text.split("\t") if "\t" in text else columns(text)


def _values_of(line: Line) -> list[str]:
    """Of a film. Raises InvalidArgument."""
    try:
        return _values(line.text)
    except Unusable as error:
        raise InvalidArgument(f"{line.where}: {error}", field="log") from None


def _films(log: Log) -> dict[str, Row]:
    """Genres by film, where a file has them."""
    if path := log.beside("u.item"):
        rows = (text.split("|") for _, text in log.lines(path, main=False, encoding="latin-1"))
        return {
            row[0]: {"genre": [name for name, flag in zip(_GENRES_100K, row[5:], strict=False) if flag == "1"]}
            for row in rows
        }
    if path := log.beside("movies.dat", "movies.csv", "movie.csv"):
        encoding = "latin-1" if ".dat" in path.suffixes else "utf-8"
        rows = (_values_of(line) for line in log.lines(path, main=False, encoding=encoding))
        return {row[0]: {"genre": row[-1].split("|")} for row in rows if len(row) > 2}
    if path := _of_recbole(log, ".item"):
        rows = (text.split("\t") for _, text in log.lines(path, main=False))
        return {row[0]: {"genre": row[-1].split(" ")} for row in rows if len(row) > 3}
    return {}


def _of_recbole(log: Log, ending: str) -> Path | None:
    """The file of this ending beside RecBole's ``.inter``."""
    folder = log.path if log.path.is_dir() else log.path.parent
    return next(iter(sorted(folder.glob(f"*{ending}"))), None)


def _people(log: Log) -> dict[str, Row]:
    """What is known of the people, where a file has it."""
    if path := log.beside("u.user"):
        rows = [text.split("|") for _, text in log.lines(path, main=False)]
        return {row[0]: _person(*row[1:4]) for row in rows if len(row) > 3}
    if path := log.beside("users.dat"):
        rows = [text.split("::") for _, text in log.lines(path, main=False)]
        return {row[0]: {"gender": row[1], "age": row[2], "occupation": row[3]} for row in rows if len(row) > 3}
    if path := _of_recbole(log, ".user"):
        rows = [text.split("\t") for _, text in log.lines(path, main=False)][1:]
        return {row[0]: _person(*row[1:4]) for row in rows if len(row) > 3}
    return {}


def _person(age: str, gender: str, occupation: str) -> Row:
    """An age that is no number is left out."""
    known: Row = {"gender": gender, "occupation": occupation}
    try:
        years = float(age)
    except ValueError:
        return known
    return {"age": years, **known} if math.isfinite(years) else known
