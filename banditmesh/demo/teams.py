"""The service teams of the demo: four recommendation logics that write mapping files from the ratings known so far.

Each person's earliest ratings are the past, known to the teams; the later ones are the visits, known to nobody but the
visitor. What a team proposes never uses a rating of the person's own visits that has not happened yet.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from banditmesh.demo.movielens import Person, Ratings

PAST_SHARE = 0.3
CANDIDATES = 25
LIKED = 4.0
NEW_SINCE = 1996
SIMILARITY_DAMPING = 3.0

# (service, logic) and the format that its team writes.
LOGICS = {
    ("genre", "new-for-favourite"): "parquet",
    ("charts", "popular-in-age-band"): "csv",
    ("taste", "similar-to-liked"): "jsonl",
    ("discover", "random"): "csv",
}

Proposals = dict[str, list[str]]
"""Films by user, the best first."""


@dataclass(frozen=True)
class History:
    """What is known when the teams' jobs run.

    Attributes:
        ratings: All ratings; only those in ``known`` may be used.
        known: ``bool[n]``, the ratings that have happened.
    """

    ratings: Ratings
    known: NDArray[np.bool_]

    def liked(self) -> NDArray[np.float32]:
        """Return ``float32[n_users, n_items]``: 1 where the user is known to like the film."""
        ratings = self.ratings
        matrix = np.zeros((len(ratings.users), len(ratings.items)), np.float32)
        rows = self.known & (ratings.rating >= LIKED)
        matrix[ratings.user[rows], ratings.item[rows]] = 1
        return matrix

    def seen(self) -> NDArray[np.bool_]:
        """Return ``bool[n_users, n_items]``: the user is known to have rated the film."""
        matrix = np.zeros((len(self.ratings.users), len(self.ratings.items)), np.bool_)
        matrix[self.ratings.user[self.known], self.ratings.item[self.known]] = True
        return matrix


def past(ratings: Ratings) -> NDArray[np.bool_]:
    """Return ``bool[n]``: the earliest 30 % of each person's ratings."""
    count = np.bincount(ratings.user, minlength=len(ratings.users))
    order = np.argsort(ratings.user, kind="stable")
    starts = np.concatenate([[0], np.cumsum(count)[:-1]])
    rank = np.empty(len(ratings), np.int64)
    rank[order] = np.arange(len(ratings)) - np.repeat(starts, count)
    known: NDArray[np.bool_] = rank < np.ceil(PAST_SHARE * count)[ratings.user]
    return known


def age_band(person: Person) -> str:
    """Return ``20s`` for somebody of 24."""
    return "unknown" if person.age is None else f"{person.age // 10 * 10}s"


def propose(history: History, rng: np.random.Generator) -> dict[tuple[str, str], Proposals]:
    """Run the four teams' jobs; return the proposals of each (service, logic)."""
    ratings, liked, seen = history.ratings, history.liked(), history.seen()
    scores = {
        ("genre", "new-for-favourite"): _new_for_favourite(ratings, liked, rng),
        ("charts", "popular-in-age-band"): _popular_in_age_band(ratings, liked),
        ("taste", "similar-to-liked"): _similar_to_liked(liked),
        ("discover", "random"): rng.random(liked.shape, np.float32),
    }
    return {logic: _best(ratings, np.where(seen, -np.inf, score)) for logic, score in scores.items()}


def _best(ratings: Ratings, scores: NDArray[np.float32]) -> Proposals:
    top = np.argsort(-scores, axis=1, kind="stable")[:, :CANDIDATES]
    return {
        user: [ratings.items[item] for item in row if scores[index, item] > 0]
        for index, (user, row) in enumerate(zip(ratings.users, top, strict=True))
    }


def _new_for_favourite(ratings: Ratings, liked: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    films = [ratings.films.get(item) for item in ratings.items]
    genres = sorted({genre for film in films if film for genre in film.genres})
    has = np.array([[film is not None and genre in film.genres for genre in genres] for film in films], np.float32)
    if not genres:
        return rng.random(liked.shape, np.float32)
    new = np.array([film is not None and (film.year or 0) >= NEW_SINCE for film in films])
    favourite = np.argmax(liked @ has, axis=1)
    return np.where((has.T[favourite] > 0) & new, rng.random(liked.shape, np.float32), 0).astype(np.float32)


def _popular_in_age_band(ratings: Ratings, liked: NDArray[np.float32]) -> NDArray[np.float32]:
    bands = np.array([age_band(ratings.people.get(user, Person())) for user in ratings.users])
    scores = np.zeros_like(liked)
    for band in np.unique(bands):
        scores[bands == band] = liked[bands == band].sum(axis=0)
    return scores


def _similar_to_liked(liked: NDArray[np.float32]) -> NDArray[np.float32]:
    """Item-to-item cosine similarity (Sarwar et al. 2001), damped so that rare films do not look alike by chance."""
    norm = np.linalg.norm(liked, axis=0) + SIMILARITY_DAMPING
    similarity = ((liked.T @ liked) / np.outer(norm, norm)).astype(np.float32)
    np.fill_diagonal(similarity, 0)
    scores: NDArray[np.float32] = liked @ similarity
    return scores


def write_mapping(folder: Path, logic: tuple[str, str], proposals: Proposals) -> Path:
    """Write a mapping file in the format that the logic's team uses; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(user, films) for user, films in proposals.items() if films]
    path = folder / f"{logic[0]}-{logic[1]}.{LOGICS[logic]}"
    match LOGICS[logic]:
        case "parquet":
            pq.write_table(pa.table({"user_id": [row[0] for row in rows], "contents": [row[1] for row in rows]}), path)
        case "jsonl":
            path.write_text("".join(json.dumps({"user_id": user, "contents": films}) + "\n" for user, films in rows))
        case _:
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["user_id", "contents"])
                writer.writerows((user, "|".join(films)) for user, films in rows)
    return path


def write_profiles(folder: Path, ratings: Ratings) -> Path:
    """Write the profiles of all people; return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "profiles.jsonl"
    services = sorted({service for service, _ in LOGICS})
    with path.open("w") as file:
        for user in ratings.users:
            person = ratings.people.get(user, Person())
            known = {"gender": person.gender, "occupation": person.occupation, "age_band": age_band(person)}
            fields = {name: value for name, value in known.items() if value}
            file.write(json.dumps({"user_id": user, **fields, "used_services": services}) + "\n")
    return path


def summary(proposals: dict[tuple[str, str], Proposals]) -> str:
    """Say how much was proposed, by logic."""
    counts = Counter(
        {f"{service}/{logic}": sum(map(len, rows.values())) for (service, logic), rows in proposals.items()}
    )
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
