from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banditmesh.archive.layout import Folder
from banditmesh.bandits import hashing
from banditmesh.bandits.als import Als, AlsParams
from banditmesh.bandits.feedback import Feedback
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import open_store
from tests.support.archive import NOON, put, rows, store_in

Run = Callable[..., Any]
MESH = """
services:
  films: {logics: [all]}
placements:
  shelf:
    sources: [films/all]
    experiment:
      variants:
        both: {weight: 1, policy: {blend: {personal: {als: {factors: 4, regularization: 1.0}}, k: 5}}}
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two tastes: even users like even films, odd users odd ones; everybody likes film 0 at first."""
    rng = np.random.default_rng(1)
    rows = []
    for user in range(40):
        for step, film in enumerate([0, *(rng.permutation(15)[:8] * 2 + user % 2).tolist()]):
            candidate = {"id": f"f{film}", "service": "films"}
            rows.append({"user": f"u{user}", "t": user * 100 + step, "candidates": [candidate], "reward": 1.0})
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_fit_on_a_log_is_published_where_the_engine_of_the_placement_looks(
    run: Run, log: Path, tmp_path: Path
) -> None:
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(MESH)
    store = (tmp_path / "store").as_uri()
    for version in (1, 2):
        ended = run("als", "fit", log, "--config", mesh, "--save", store, "--json")
        assert ended.code == 0, ended.err
        told = json.loads(ended.out)
        assert told["saved"]["version"] == version
    assert (told["placement"], told["users"], told["params"]["factors"]) == ("shelf", 40, 4)
    (model,) = (path.name for path in (tmp_path / "store" / "models" / "shelf").iterdir())
    loaded = asyncio.run(Snapshots(open_store(store), None).load("shelf", model, 2))
    als = Als.from_tensors(AlsParams.model_validate(told["params"]), loaded.tensors)
    assert set(als.services.tolist()) == {hashing.service_key("films")}
    film = {n: hashing.content_key("films", f"f{n}") for n in range(30)}
    one = np.array([1.0], np.float32)
    liked = Feedback(np.array([0, 1]), np.array([film[4]], np.uint64), np.array([1]), one, np.array([1]))
    scores = als.factors @ als.users(liked)[0]
    means = [scores[als.rows(np.array([film[n] for n in range(2 + side, 30, 2)], np.uint64))].mean() for side in (0, 1)]
    assert means[0] > means[1] + 0.02


def test_tune_shows_the_blend_beside_its_ends_and_draws_it(run: Run, log: Path, tmp_path: Path) -> None:
    plot = tmp_path / "blend.png"
    ended = run("als", "fit", log, "--policy", "als:factors=4,regularization=1.0", "--tune", "k", "--plot", plot)
    assert ended.code == 0, ended.err
    assert "In mesh.yaml: k: " in ended.out
    assert "1-2" in ended.out
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_a_fit_on_an_archive_reads_its_reactions(run: Run, tmp_path: Path) -> None:
    asyncio.run(put(store_in(tmp_path), Folder("examples", "home", NOON), rows(0, 40)))
    ended = run(
        "als",
        "fit",
        tmp_path,
        "--placement",
        "home",
        "--policy",
        "als:factors=2",
        "--since",
        NOON.isoformat(),
        "--json",
    )
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["events"], told["contents"]) == (20, 5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy", "fm"], "must be als or blend"),
        (["--tune", "w"], "can be k alone"),
        (["--plot", "blend.png"], "add --tune k"),
        (["--tune", "k", "--plot", "nowhere/blend.png"], "the folder does not exist"),
        (["--liked", "2"], "no row has a user and a reward of at least 2"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_words(run: Run, log: Path, words: list[str], says: str) -> None:
    ended = run("als", "fit", log, *words)
    assert ended.code == 2
    assert says in ended.err
