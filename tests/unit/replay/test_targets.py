from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.spec import parse
from banditmesh.fit.fit import Options as FitOptions
from banditmesh.fit.fit import fit
from banditmesh.fit.save import save
from banditmesh.replay.offpolicy import OffPolicy
from banditmesh.replay.replay import Method, Options, replay
from banditmesh.replay.targets import column, saved
from banditmesh.runtime.addresses import FileAddress
from banditmesh.runtime.errors import InvalidArgument, NotFound

RATES = (0.1, 0.3, 0.5, 0.9)
TARGET = [0.1, 0.2, 0.3, 0.4]
N = 2000


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Four arms, shown uniformly at random with a propensity; each row carries another policy's probabilities."""
    rng = np.random.default_rng(0)
    found = []
    for shown in rng.integers(4, size=N).tolist():
        candidates = [{"id": str(arm)} for arm in range(4)]
        reward = float(rng.random() < RATES[shown])
        found.append({"candidates": candidates, "shown": shown, "propensity": 0.25, "reward": reward, "new": TARGET})
    return found


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def store(folder: Path, log: Path, policy: str = "popularity") -> Path:
    save(fit(log, parse(policy), FitOptions()), FileAddress(folder), "home", now_ms=1)
    return folder


def estimated(log: Path, spec: Any, method: Method = "auto") -> OffPolicy:
    run = replay(log, [spec], Options(method))[1][0][0]
    assert isinstance(run, OffPolicy)
    return run


def test_a_saved_model_is_evaluated_as_it_is(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    log = written(tmp_path / "log", rows)
    models = store(tmp_path / "store", log)
    (folder,) = (models / "models" / "home").iterdir()
    for address in (models, folder, folder / "00000001", folder / "current.json", folder.as_uri()):
        spec = saved(f"{address}::explore=greedy")
        assert spec.text == f"home/{folder.name} version 1::explore=greedy"
        run = estimated(log, spec)
        lower, upper = run.answer.interval
        assert lower < 0.9 < upper  # greedy takes the best arm from the first row on
        assert run.evaluation.support.largest == pytest.approx(4)


def test_a_saved_model_knows_what_it_saw_of_a_row(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    log = written(tmp_path / "log", [{**row, "user": "ann", "context": {"age": "30s"}} for row in rows[:100]])
    models = store(tmp_path / "store", log, "linear:user=false")
    assert saved(str(models)).features == {"user": False, "cross": [["id", "context"]]}
    assert saved(f"{models}::user=true").features == {"user": True, "cross": [["id", "context"]]}


def test_a_saved_model_learns_nothing_from_the_log(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    models = store(tmp_path / "store", written(tmp_path / "log", rows))
    turned = [{**row, "reward": 1 - row["reward"]} for row in rows]
    spec = saved(f"{models}::explore=greedy")
    run = estimated(written(tmp_path / "turned", turned), spec, "snips")
    assert run.answer.value == pytest.approx(0.1, abs=0.05)
    online = replay(written(tmp_path / "again", turned), [spec], Options("rejection"))[1][0][0]
    assert online.tally.mean == pytest.approx(0.1, abs=0.05)


def test_the_current_version_is_taken_unless_another_is_named(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    log = written(tmp_path / "log", rows)
    models = store(tmp_path / "store", log)
    worse = written(tmp_path / "worse", [{**row, "reward": float(row["shown"] == 0)} for row in rows])
    # Of the same name, since the parameters are: what the second log says of the prior must not be read off it.
    fitted = fit(worse, saved(str(models)), FitOptions())
    save(fitted, FileAddress(models), "home", now_ms=2)
    (folder,) = (models / "models" / "home").iterdir()
    assert estimated(log, saved(f"{models}::explore=greedy"), "snips").answer.value < 0.2
    assert estimated(log, saved(f"{folder}/00000001::explore=greedy"), "snips").answer.value > 0.8


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("nowhere/models/home/popularity-12345678", NotFound, "no folder"),
        ("store/models/home/popularity-12345678", NotFound, "no model"),
        ("store/models/home/popularity-12345678/00000007", InvalidArgument, "missing"),
        ("store::explore=magic", InvalidArgument, "magic"),
        ("store::prior_reward=0.3", InvalidArgument, "part of the model"),
        ("ftp://host/models/home/x", InvalidArgument, "expected s3://"),
    ],
)
def test_a_model_that_is_not_there_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], address: str, error: type[Exception], says: str
) -> None:
    store(tmp_path / "store", written(tmp_path / "log", rows))
    with pytest.raises(error, match=says):
        saved(address if "://" in address else f"{tmp_path}/{address}")
    assert not (tmp_path / "nowhere").exists()


def test_a_store_with_several_models_lists_them(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    log = written(tmp_path / "log", rows)
    store(store(tmp_path / "store", log), log, "popularity:prior_weight=3")
    with pytest.raises(InvalidArgument, match=r"several models: models/home/popularity-\w+, models/home/popularity-"):
        saved(str(tmp_path / "store"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="has no model"):
        saved(str(tmp_path / "empty"))


def test_a_column_is_evaluated_by_its_probabilities(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    run = estimated(written(tmp_path / "log", rows), column("new"), "ips")
    by_hand = np.mean([row["reward"] * TARGET[row["shown"]] / 0.25 for row in rows])
    assert run.answer.value == pytest.approx(by_hand, rel=1e-6)
    lower, upper = estimated(tmp_path / "log", column("new"), "dr").answer.interval
    assert lower < np.dot(TARGET, RATES) < upper


def test_each_candidate_may_have_its_own_probability(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    log = written(tmp_path / "log", rows)
    own = [
        {**row, "new": None, "candidates": [{"id": str(arm), "new": TARGET[arm]} for arm in range(4)]} for row in rows
    ]
    there = written(tmp_path / "own", own)
    assert estimated(there, column("new"), "dr").answer == estimated(log, column("new"), "dr").answer


def test_a_probability_of_what_was_shown_is_enough_without_a_reward_model(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    log = written(tmp_path / "log", rows)
    alone = written(tmp_path / "alone", [{**row, "new": TARGET[row["shown"]]} for row in rows])
    assert estimated(alone, column("new"), "snips").answer == estimated(log, column("new"), "snips").answer
    assert "dr" not in estimated(alone, column("new"), "auto").evaluation.estimates
    with pytest.raises(InvalidArgument, match=r"alone:1: .*reward model"):
        estimated(alone, column("new"), "dr")


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (None, "new"),
        ([0.5, 0.5], "2 probabilities for 4 candidates"),
        ([0.5, 0.5, 0.5, 0.5], "adds up to 2"),
        ([1.5, -0.5, 0, 0], r"from 0 to 1; field new\[0\]"),
        ("all", "from 0 to 1"),
        (True, "from 0 to 1"),
    ],
)
def test_a_column_that_is_no_probability_names_its_line(
    tmp_path: Path, rows: list[dict[str, Any]], new: object, says: str
) -> None:
    rows[6]["new"] = new
    with pytest.raises(BrokenRow, match=f"log:7: .*{says}"):
        estimated(written(tmp_path / "log", rows), column("new"))


def test_a_column_needs_logged_propensities(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidArgument, match="not by rejection"):
        replay(written(tmp_path / "log", rows), [column("new")], Options())


def test_parquet_has_the_column_too(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    log = written(tmp_path / "log", rows)
    assert estimated(tmp_path / "log.parquet", column("new")).answer == estimated(log, column("new")).answer


def test_the_tally_of_an_experiment_is_no_model(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    store(tmp_path / "store", written(tmp_path / "log", rows))
    tally = tmp_path / "store" / "models" / "home" / "experiment"
    tally.mkdir()
    (tally / "current.json").write_text('{"version": 1}')
    assert saved(str(tmp_path / "store")).policy == "popularity"
