"""The collection: logs of different kinds, each made from what a package of the registry carries, or simulated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn import datasets

from banditmesh.demo.movielens import movielens
from banditmesh.local import cache
from benchmarks.online.simulations import SIMULATIONS, Row

MOST_ROWS: Final = 5_000


def bundled(name: str, seed: int) -> Iterator[Row]:
    """A multi-class set of scikit-learn: the class is the one candidate that earns 1."""
    bunch: Any = getattr(datasets, f"load_{name}")()
    return multiclass(bunch.data, bunch.target, seed, passes=max(1, 600 // len(bunch.target)))


def generated(
    seed: int, *, classes: int, fields: int, informative: int, redundant: int, clusters: int = 1, skewed: bool = False
) -> Iterator[Row]:
    """A generated multi-class set, with numeric fields of different size, some of them correlated."""
    x, y = datasets.make_classification(
        4_000,
        fields,
        n_informative=informative,
        n_redundant=redundant,
        n_classes=classes,
        n_clusters_per_class=clusters,
        class_sep=1.6,
        flip_y=0.02,
        weights=list(0.5 ** np.arange(classes) / sum(0.5 ** np.arange(classes))) if skewed else None,
        random_state=seed + 100,
    )
    scale = 10.0 ** np.random.default_rng(seed).uniform(-1, 2, fields)
    shift = np.random.default_rng(seed + 1).uniform(0, 4, fields)
    return multiclass((x + shift) * scale, y, seed)


def multiclass(x: Any, y: Any, seed: int, passes: int = 1) -> Iterator[Row]:
    """Rows in random order. x: float[n, d]; y: int[n]."""
    rng = np.random.default_rng(seed)
    for _ in range(passes):
        for at in rng.permutation(len(y)).tolist():
            context = {f"x{field}": float(value) for field, value in enumerate(x[at])}
            candidates = [{"id": f"k{each}", "reward": float(each == y[at])} for each in range(int(y.max()) + 1)]
            yield {"context": context, "candidates": candidates}


def slates(seed: int) -> Iterator[Row]:
    """MovieLens 100k as slates: ten films that a person has rated, in the order of time; 4 and 5 stars earn 1."""
    for row, _ in _films(seed, described=True):
        yield row


def stars(seed: int) -> Iterator[Row]:
    """The same slates without features of films; the reward is the number of stars."""
    for row, ratings in _films(seed, described=False):
        row["candidates"] = [
            {"id": each["id"], "reward": rating} for each, rating in zip(row["candidates"], ratings, strict=True)
        ]
        yield row


def _films(seed: int, *, described: bool) -> Iterator[tuple[dict[str, Any], list[float]]]:
    ratings = movielens(cache.folder())
    of_user: list[list[int]] = [[] for _ in ratings.users]
    rng = np.random.default_rng(seed)
    rows = 0
    for at, user in enumerate(ratings.user.tolist()):
        of_user[user].append(at)
        if len(of_user[user]) < 10:
            continue
        offered, of_user[user] = rng.permutation(of_user[user]).tolist(), []
        person = ratings.people.get(ratings.users[user])
        context: dict[str, Any] = {}
        if person is not None:
            age = "?" if person.age is None else f"{person.age // 10}0s"
            context = {"age": age, "gender": person.gender, "occupation": person.occupation}
        candidates = []
        for each in offered:
            film = ratings.films.get(ratings.items[ratings.item[each]])
            features = {"genre": list(film.genres)} if described and film is not None and film.genres else {}
            candidates.append(
                {
                    "id": ratings.items[ratings.item[each]],
                    "reward": float(ratings.rating[each] >= 4),
                    **({"features": features} if features else {}),
                }
            )
        row = {"t": 8.8e8 + rows, "user": ratings.users[user], "context": context, "candidates": candidates}
        yield row, [float(ratings.rating[each]) for each in offered]
        rows += 1
        if rows >= MOST_ROWS:
            return


LOGS: Final[dict[str, Callable[[int], Iterator[Row]]]] = {
    "digits": partial(bundled, "digits"),
    "wine": partial(bundled, "wine"),
    "cancer": partial(bundled, "breast_cancer"),
    "iris": partial(bundled, "iris"),
    "20 classes": partial(generated, classes=20, fields=16, informative=10, redundant=4),
    "6 classes": partial(generated, classes=6, fields=36, informative=8, redundant=26),
    "7 skewed": partial(generated, classes=7, fields=19, informative=8, redundant=8, clusters=2, skewed=True),
    "film slates": slates,
    "film stars": stars,
    **{f"sim: {name}": each.rows for name, each in SIMULATIONS.items()},
}
"""By name: what makes the rows of a log, given a seed."""


def write(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes rows as JSON lines."""
    with path.open("w") as file:
        for row in rows:
            print(json.dumps(row), file=file)
