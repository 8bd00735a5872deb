"""MovieLens 100k (for research only). Likes: rating 4 or 5 is the label; user, item, age, gender,
occupation, year and genres are the features; random 80/10/10, early stopping on the second part for everybody. Stars:
user and item alone, RMSE on the third of the five published folds; a Bayesian FM of rank 8 (myFM) has 0.9032.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import myfm
import numpy as np
import vowpalwabbit
from scipy import sparse

from banditmesh.decisions.spec import parse
from banditmesh.demo.movielens import Ratings
from banditmesh.demo.movielens import movielens as fetch
from banditmesh.fit.fit import Options, fit
from banditmesh.fit.quality import Quality, auc, log_loss
from banditmesh.local.cache import folder as cache_folder
from benchmarks.learning.figure import Figure

OURS = ("linear", "fm", "nfm")
VW = {"lrq 8": "--lrq aa8", "lrq 8, l2": "--lrq aa8 --l2 1e-6", "lrq 16, dropout": "--lrq aa16 --lrqdropout"}
MOST_EPOCHS, PATIENCE = 30, 3
Tokens = list[str]


def run(scratch: Path, data: Path) -> Iterator[Figure]:
    """See the module."""
    ratings = fetch(cache_folder())
    yield from likes(scratch, ratings)
    yield from stars(scratch)


def likes(scratch: Path, ratings: Ratings) -> Iterator[Figure]:
    """AUC and log loss on the test part, of ours, VW and myFM."""
    order = np.random.default_rng(0).permutation(len(ratings))
    parts = np.split(order, [len(order) * 8 // 10, len(order) * 9 // 10])
    logs = [scratch / name for name in ("train", "valid", "test")]
    tokens = [write_likes(log, ratings, part) for log, part in zip(logs, parts, strict=True)]
    labels = [ratings.rating[part] >= 4 for part in parts]
    aucs: dict[str, float] = {}
    for name in OURS:
        found = fit(logs[0], parse(name), Options(valid=logs[1], test=logs[2])).test
        assert found is not None
        assert found.auc is not None
        assert found.log_loss is not None
        aucs[name] = found.auc
        yield Figure("movielens", f"likes: log loss of {name}", found.log_loss)
    peers = {f"VW {name}": vw_likes(options, tokens, labels) for name, options in VW.items()}
    peers["myFM, rank 8"] = myfm_likes(tokens, labels)
    for name, (their_auc, loss) in peers.items():
        yield Figure("movielens", f"likes: AUC of {name}", their_auc)
        yield Figure("movielens", f"likes: log loss of {name}", loss)
    best = max(their_auc for their_auc, _ in peers.values()) - 0.002
    yield Figure("movielens", "likes: AUC of nfm", aucs["nfm"])
    yield Figure("movielens", "likes: AUC of linear", aucs["linear"], "< fm", aucs["linear"] < aucs["fm"])
    yield Figure("movielens", "likes: AUC of fm", aucs["fm"], f">= {best:.4f}, best peer - 0.002", aucs["fm"] >= best)


def stars(scratch: Path) -> Iterator[Figure]:
    """RMSE on the third published fold, which is the third fifth of the file's rows."""
    lines = (cache_folder() / "ml-100k" / "ml-100k.inter").read_text().splitlines()[1:]
    fifth = len(lines) // 5
    logs = {"train": lines[: 2 * fifth] + lines[3 * fifth :], "test": lines[2 * fifth : 3 * fifth]}
    for name, part in logs.items():
        with (scratch / f"stars-{name}").open("w") as file:
            for user, item, rating, time_s in (line.split("\t") for line in part):
                row = {"t": float(time_s), "user": user, "candidates": [{"id": item}], "reward": float(rating)}
                print(json.dumps(row), file=file)
    found: Quality | None = fit(
        scratch / "stars-train", parse("fm:factors=8"), Options(test=scratch / "stars-test")
    ).test
    assert found is not None
    yield Figure("movielens", "stars: RMSE of fm:factors=8", found.rmse, "<= 0.92", found.rmse <= 0.92)


def write_likes(log: Path, ratings: Ratings, part: np.ndarray) -> list[Tokens]:
    """Writes the decision log of these ratings; returns the same features as tokens, for the peers."""
    tokens: list[Tokens] = []
    with log.open("w") as file:
        for at in part.tolist():
            user, item = ratings.users[ratings.user[at]], ratings.items[ratings.item[at]]
            person, film = ratings.people[user], ratings.films[item]
            context = {"age": str(person.age), "gender": person.gender, "occupation": person.occupation}
            features = {"year": str(film.year), "genres": list(film.genres)}
            candidates = [{"id": item, "features": features}]
            row = {"user": user, "context": context, "candidates": candidates, "reward": float(ratings.rating[at] >= 4)}
            print(json.dumps(row), file=file)
            plain = {**context, "year": features["year"], "user": user, "item": item}
            tokens.append([f"{name}={value}" for name, value in plain.items()] + [f"genre={g}" for g in film.genres])
    return tokens


def vw_likes(options: str, tokens: Sequence[list[Tokens]], labels: Sequence[np.ndarray]) -> tuple[float, float]:
    """AUC and log loss of Vowpal Wabbit after the pass that is best on the valid part."""
    vw: Any = vowpalwabbit.Workspace(f"--loss_function logistic --link logistic {options} --quiet -b 20")
    train = [f"{1 if y else -1} |a {' '.join(row)}" for row, y in zip(tokens[0], labels[0], strict=True)]
    rng = np.random.default_rng(0)
    best, result, since = np.inf, (0.0, np.inf), 0
    for _ in range(MOST_EPOCHS):
        for at in rng.permutation(len(train)).tolist():
            vw.learn(train[at])
        valid, test = (np.array([vw.predict(f"|a {' '.join(row)}") for row in part]) for part in tokens[1:])
        loss, since = log_loss(labels[1], valid), since + 1
        if loss < best:
            best, result, since = loss, (auc(labels[2], test) or 0.0, log_loss(labels[2], test)), 0
        elif since >= PATIENCE:
            break
    vw.finish()
    return result


def myfm_likes(tokens: Sequence[list[Tokens]], labels: Sequence[np.ndarray]) -> tuple[float, float]:
    """AUC and log loss of myFM's Gibbs sampler, which averages over its samples and needs no early stopping."""
    vocabulary = {token: n for n, token in enumerate(sorted({t for part in tokens for row in part for t in row}))}

    def matrix(rows: list[Tokens]) -> Any:
        columns = [vocabulary[token] for row in rows for token in row]
        ends = np.cumsum([0, *map(len, rows)])
        return sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(rows), len(vocabulary)))

    model = myfm.MyFMClassifier(rank=8, random_seed=0)
    model.fit(matrix(tokens[0]), labels[0], n_iter=200, n_kept_samples=190)
    chances = model.predict_proba(matrix(tokens[2]))
    return auc(labels[2], chances) or 0.0, log_loss(labels[2], chances)
