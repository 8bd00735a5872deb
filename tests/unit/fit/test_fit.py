from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from banditmesh.bandits import registry
from banditmesh.bandits.registry import load
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.spec import parse
from banditmesh.decisions.view import View
from banditmesh.fit.fit import Options, fit, measure
from banditmesh.fit.passes import Part, Passes
from banditmesh.fit.quality import Quality
from banditmesh.fit.save import save
from banditmesh.runtime.addresses import FileAddress
from banditmesh.runtime.errors import InvalidArgument, NotFound
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.snapshots import Snapshot, Snapshots
from banditmesh.runtime.store import open_store
from services.learner.catalog import Catalog, ShardId
from services.learner.shard import Shard


def taste_log(path: Path, n: int, seed: int, *, scale: float = 1.0, shift: float = 0.0, noise: float = 0.0) -> Path:
    """20 users like the even or the odd ones of 10 items: nothing but the interaction tells."""
    rng = np.random.default_rng(seed)
    with path.open("w") as file:
        for _ in range(n):
            user, item = int(rng.integers(20)), int(rng.integers(10))
            liked = float((user + item) % 2 == (rng.random() < noise))
            file.write(
                json.dumps({"user": f"u{user}", "candidates": [{"id": f"i{item}"}], "reward": shift + scale * liked})
                + "\n"
            )
    return path


def test_fm_finds_an_interaction_that_linear_cannot(tmp_path: Path) -> None:
    train, test = taste_log(tmp_path / "train", 3000, 0), taste_log(tmp_path / "test", 500, 1)
    aucs = {}
    for name in ("linear", "fm:factors=4"):
        found = fit(train, parse(name), Options(test=test, epochs=8)).test
        assert found is not None
        assert found.auc is not None
        aucs[name] = found.auc
    assert aucs["fm:factors=4"] > 0.95
    assert aucs["linear"] < 0.6


def crowded_log(path: Path, n: int, seed: int) -> Path:
    """Users and items fit by two tastes; hour and city, which are crossed with the items' years, say nothing."""
    rng, users, items = np.random.default_rng(seed), *np.random.default_rng(0).normal(size=(2, 60, 2))
    with path.open("w") as file:
        for user, item, hour, city in rng.integers((60, 60, 24, 30), size=(n, 4)).tolist():
            liked = rng.random() < 1 / (1 + np.exp(-2.0 * users[user] @ items[item]))
            candidate = {"id": f"i{item}", "features": {"year": f"y{item % 20}"}}
            context = {"hour": f"h{hour}", "city": f"c{city}"}
            row = {"user": f"u{user}", "context": context, "candidates": [candidate], "reward": float(liked)}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize(("name", "least"), [("fm", 0.81), ("nfm", 0.78), ("stacked", 0.84)])
def test_interactions_are_found_though_weights_that_say_nothing_are_many(
    name: str, least: float, tmp_path: Path
) -> None:
    train, valid, test = (
        crowded_log(tmp_path / part, n, seed)
        for seed, (part, n) in enumerate({"train": 6000, "valid": 1500, "test": 3000}.items(), 1)
    )
    found = fit(train, parse(name), Options(valid=valid, test=test)).test
    assert found is not None
    assert found.auc is not None
    assert found.auc > least


def test_the_scale_of_the_rewards_is_read_off_the_log(tmp_path: Path) -> None:
    clicks = fit(taste_log(tmp_path / "clicks", 300, 0), parse("linear"), Options(epochs=1)).spec.params
    assert clicks["link"] == "logit"
    assert clicks["prior_reward"] == pytest.approx(0.5, abs=0.1)
    stars = taste_log(tmp_path / "stars", 300, 0, scale=2.0, shift=3.0)
    assert fit(stars, parse("linear"), Options(epochs=1)).spec.params["link"] == "identity"
    assert fit(stars, parse("linear"), Options(epochs=1)).spec.params["prior_reward"] == pytest.approx(4, abs=0.2)


def test_the_scale_is_that_of_the_whole_log_also_when_it_is_sorted_by_reward(tmp_path: Path) -> None:
    rows = sorted(
        taste_log(tmp_path / "log", 600, 0).read_text().splitlines(), key=lambda row: json.loads(row)["reward"]
    )
    (tmp_path / "sorted").write_text("\n".join(rows))
    params = fit(tmp_path / "sorted", parse("linear"), Options(epochs=2)).spec.params
    assert params["prior_reward"] == pytest.approx(0.5, abs=0.1)
    (tmp_path / "graded").write_text("\n".join([*rows, rows[0].replace('"reward": 0.0', '"reward": 3.0')]))
    assert fit(tmp_path / "graded", parse("linear"), Options(epochs=2)).spec.params["link"] == "identity"


def test_what_the_spec_says_of_the_scale_stands(tmp_path: Path) -> None:
    log = taste_log(tmp_path / "log", 300, 0)
    params = fit(log, parse("linear:link=identity,prior_reward=0.1"), Options(epochs=1)).spec.params
    assert params == {"link": "identity", "prior_reward": 0.1}


def test_early_stopping_returns_the_policy_of_the_best_epoch(tmp_path: Path) -> None:
    train, valid = (taste_log(tmp_path / name, 600, seed, noise=0.3) for seed, name in enumerate(("train", "valid")))
    fitted = fit(train, parse("fm:factors=4,learning_rate=0.1,decay=0,ridge=0.1"), Options(valid=valid, epochs=40))
    losses = [each.loss for each in fitted.valid]
    assert fitted.epochs == 1 + int(np.argmin(losses)) > 1
    assert len(losses) == fitted.epochs + 3
    assert losses[-1] > min(losses) + 1e-3
    again = measure(fitted.policy, Passes(valid, View(user=True)).in_order())
    assert again.loss == pytest.approx(min(losses), rel=1e-6)


def test_a_policy_is_not_surer_for_having_seen_the_same_rows_again(tmp_path: Path) -> None:
    log = taste_log(tmp_path / "log", 512, 0)
    deviations = []
    for epochs in (1, 6):
        policy = fit(log, parse("linear"), Options(epochs=epochs)).policy
        deviations.append(float(policy.score(encode(next(batches(log)), View(user=True)).candidates).deviation.mean()))
    assert deviations[1] == pytest.approx(deviations[0], rel=0.1)


def test_without_epochs_held_out_rows_decide_and_then_all_rows_count(tmp_path: Path) -> None:
    log = taste_log(tmp_path / "log", 1500, 0)
    fitted = fit(log, parse("fm:factors=4"), Options())
    assert fitted.examples == 1500
    assert 100 < fitted.valid[0].rows < 200
    assert fitted.epochs == 1 + int(np.argmin([each.loss for each in fitted.valid]))


def test_sums_take_one_pass_however_many_are_asked_for(tmp_path: Path) -> None:
    log = taste_log(tmp_path / "log", 300, 0)
    one, five = (fit(log, parse("linucb"), Options(epochs=epochs)) for epochs in (1, 5))
    assert five.epochs == 1
    for name, array in one.policy.tensors().items():
        assert (array == five.policy.tensors()[name]).all()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    log = taste_log(tmp_path / "log", 600, 0)
    left, right, other = (fit(log, parse("fm"), Options(epochs=3, seed=seed)).policy.tensors() for seed in (1, 1, 2))
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)
    assert any(left[name].tobytes() != other[name].tobytes() for name in left)


def test_what_is_held_out_is_a_tenth_and_the_rest_is_the_rest(tmp_path: Path) -> None:
    held, rest = ([line for line in range(1, 5001) if part.has(line)] for part in (Part.HELD_OUT, Part.REST))
    assert sorted([*held, *rest]) == list(range(1, 5001))
    assert 400 < len(held) < 600


async def stored(folder: Path, placement: str, model: str) -> Snapshot:
    snapshots = Snapshots(open_store(folder.as_uri()), None)
    pointer = await snapshots.pointer(placement, model)
    assert pointer is not None
    return await snapshots.load(placement, model, pointer.version)


def test_a_saved_model_scores_as_the_fitted_one(tmp_path: Path) -> None:
    log = taste_log(tmp_path / "log", 800, 0)
    fitted = fit(log, parse("fm"), Options(epochs=2))
    assert [save(fitted, FileAddress(tmp_path / "store"), "home", now_ms=1) for _ in range(2)] == [1, 2]
    snapshot = asyncio.run(stored(tmp_path / "store", "home", fitted.spec.model))
    loaded = load(snapshot.manifest.policy, snapshot.manifest.params, snapshot.tensors)
    view = View(user=True)
    assert snapshot.manifest.examples == 800
    assert measure(loaded, Passes(log, view).in_order()) == measure(fitted.policy, Passes(log, view).in_order())


@pytest.mark.parametrize("text", ["stacked", "fm", "linear", "linucb:dimension=8", "popularity"])
def test_the_learner_of_a_mesh_with_these_parameters_goes_on_from_a_saved_model(tmp_path: Path, text: str) -> None:
    fitted = fit(taste_log(tmp_path / "log", 300, 0), parse(text), Options(epochs=1))
    save(fitted, FileAddress(tmp_path / "store"), "home", now_ms=1)
    policy = json.dumps({fitted.spec.policy: dict(fitted.spec.params)})
    mesh = parse_mesh(
        f"{{services: {{comics: {{logics: [new]}}}}, placements: {{home: {{sources: [comics/new], "
        f"experiment: {{variants: {{one: {{weight: 1, policy: {policy}}}}}}}}}}}}}"
    )
    shard_id = ShardId("home", fitted.spec.model)
    shard = Shard(shard_id, Catalog(mesh).models[shard_id], batch=16)
    shard.restore(asyncio.run(stored(tmp_path / "store", *shard_id)))
    assert shard.examples == 300


@pytest.mark.parametrize("text", ["popularity", "linucb", "stacked:link=identity,prior_reward=0.5"])
def test_one_spec_is_one_policy_in_fit_replay_and_learner(tmp_path: Path, text: str) -> None:
    log, spec = taste_log(tmp_path / "log", 60, 0), parse(text)
    fitted = fit(log, spec, Options(epochs=1))
    (rows,) = batches(log)
    learned = encode(rows, spec.view(rows)).shown_examples()
    replayed, served = spec.build(), registry.build(spec.policy, spec.params)
    for policy in (replayed, served):
        policy.learn(learned)
    assert fitted.spec.model == spec.model
    for policy in (replayed, served):
        assert {name: each.tobytes() for name, each in policy.tensors().items()} == {
            name: each.tobytes() for name, each in fitted.policy.tensors().items()
        }


def test_a_log_too_short_to_hold_anything_out_is_fitted_in_one_pass(tmp_path: Path) -> None:
    log = taste_log(tmp_path / "log", 1, 0)
    fitted = fit(log, parse("fm"), Options(test=log))
    assert (fitted.epochs, fitted.valid, fitted.examples) == (1, (), 1)


def test_an_empty_test_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(InvalidArgument, match="empty has no rows"):
        fit(taste_log(tmp_path / "log", 30, 0), parse("fm"), Options(test=tmp_path / "empty", epochs=1))


def test_an_empty_log_and_one_that_is_not_there_are_typed_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(InvalidArgument, match="no rows"):
        fit(tmp_path / "empty", parse("fm"), Options())
    with pytest.raises(NotFound):
        fit(tmp_path / "nothing", parse("fm"), Options())


def test_a_fit_reads_its_log_once_after_the_first_rows_and_tells_how_far_it_is(tmp_path: Path) -> None:
    log = taste_log(tmp_path / "log", 2000, 0)
    told: list[tuple[int, int, int | None]] = []

    def tell(epoch: int, done: int, of: int | None, found: Quality | None) -> None:
        told.append((epoch, done, of))
        if epoch == 2:
            log.unlink(missing_ok=True)

    assert fit(log, parse("fm:factors=2"), Options(), tell).examples == 2000
    assert all(of is not None and done <= of + 1 for _, done, of in told)
    assert told[-1][1:] == (2000, 2000)
