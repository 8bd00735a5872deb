"""What the demo's service teams may know, and what they write."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from banditmesh.demo import teams
from banditmesh.demo.movielens import Film, NoRatings, Person, Ratings, read_ratings


@pytest.fixture
def ratings() -> Ratings:
    rng = np.random.default_rng(0)
    n_users, n_items, n = 12, 40, 240
    return Ratings(
        users=[f"u{number}" for number in range(n_users)],
        items=[f"f{number}" for number in range(n_items)],
        user=rng.integers(0, n_users, n).astype(np.int32),
        item=rng.integers(0, n_items, n).astype(np.int32),
        rating=rng.integers(1, 6, n).astype(np.float32),
        films={f"f{number}": Film(f"Film {number}", ("Drama",), 1990 + number % 9) for number in range(n_items)},
        people={f"u{number}": Person(20 + number, "F", "artist") for number in range(n_users)},
        origin="made up",
    )


def test_the_past_is_each_persons_earliest_ratings(ratings: Ratings) -> None:
    known = teams.past(ratings)
    for user in range(len(ratings.users)):
        mine = known[ratings.user == user]
        assert mine.sum() == np.ceil(teams.PAST_SHARE * len(mine))
        assert not np.any(np.diff(mine.astype(int)) > 0), "a known rating comes after one that is not known"


def test_no_team_sees_a_rating_of_the_visits(ratings: Ratings) -> None:
    known = teams.past(ratings)
    changed = Ratings(**{**vars(ratings), "rating": np.where(known, ratings.rating, 6 - ratings.rating)})
    before, after = (teams.propose(teams.History(each, known), np.random.default_rng(3)) for each in (ratings, changed))
    assert before == after


def test_what_somebody_has_seen_is_not_proposed_again(ratings: Ratings) -> None:
    known = teams.past(ratings)
    seen = {
        (ratings.users[user], ratings.items[item])
        for user, item in zip(ratings.user[known], ratings.item[known], strict=True)
    }
    for rows in teams.propose(teams.History(ratings, known), np.random.default_rng(3)).values():
        assert not any((user, film) in seen for user, films in rows.items() for film in films)


def test_each_team_writes_its_own_format(ratings: Ratings, tmp_path: Path) -> None:
    proposals = teams.propose(teams.History(ratings, teams.past(ratings)), np.random.default_rng(3))
    for logic, rows in proposals.items():
        wanted = {user: films for user, films in rows.items() if films}
        assert read_back(teams.write_mapping(tmp_path, logic, rows)) == wanted


def read_back(path: Path) -> dict[str, list[str]]:
    if path.suffix == ".parquet":
        table = pq.read_table(path).to_pydict()
        return dict(zip(table["user_id"], table["contents"], strict=True))
    if path.suffix == ".jsonl":
        return {row["user_id"]: row["contents"] for row in map(json.loads, path.read_text().splitlines())}
    with path.open() as file:
        return {row["user_id"]: row["contents"].split("|") for row in csv.DictReader(file)}


def test_ratings_with_and_without_a_header_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "plain.data").write_text("1\t10\t4\t100\n2\t20\t2\t50\n")
    (tmp_path / "named.csv").write_text("userId,movieId,rating,timestamp\n1,10,4,100\n2,20,2,50\n")
    plain, named = read_ratings(tmp_path / "plain.data"), read_ratings(tmp_path / "named.csv")
    assert plain.users == named.users == ["1", "2"]
    assert plain.rating.tolist() == named.rating.tolist() == [2.0, 4.0], "they are in the order of their timestamps"


def test_a_broken_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_text("user,item,rating,timestamp\n1,10,4,100\n1,11,four,101\n")
    with pytest.raises(NoRatings, match="line 3"):
        read_ratings(path)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("1,11", "the rating is missing"),
        (",11,4,101", "the user is missing"),
        ("1,11,nan,101", "must be finite"),
        ("1,11,4,inf", "must be finite"),
    ],
)
def test_a_row_that_says_too_little_is_named(tmp_path: Path, row: str, wrong: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(f"1,10,4,100\n{row}\n")
    with pytest.raises(NoRatings, match=f"line 2: .*{wrong}"):
        read_ratings(path)


def test_a_file_of_something_else_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text("services: {a: 1}\nplacements: {p: [1, 2], q: 3}\n")
    with pytest.raises(NoRatings, match="no column for the user"):
        read_ratings(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("user,item,stars,timestamp\n1,10,4,100\n")
    with pytest.raises(NoRatings, match="no column for the rating"):
        read_ratings(path)
