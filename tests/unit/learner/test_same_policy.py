"""A SPEC is one policy, whoever builds it and lets it learn: a replay, a fit, the learner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from banditmesh.bandits.registry import policy_params
from banditmesh.decisions.reader import batches
from banditmesh.decisions.spec import parse
from banditmesh.fit.fit import Options, fit
from banditmesh.fit.passes import Passes
from banditmesh.replay.replay import Options as ReplayOptions
from banditmesh.replay.replay import replay
from services.learner.catalog import ModelSpec, ShardId
from services.learner.shard import Shard

from ..bandits.laws import same_bytes


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    with path.open("w") as file:
        for line in range(120):
            row = {
                "t": 20.0 * line,
                "user": f"u{rng.integers(9)}",
                "context": {"age": float(rng.normal(40, 9)), "city": f"c{rng.integers(3)}"},
                "candidates": [{"id": f"k{arm}"} for arm in range(4)],
                "shown": int(rng.integers(4)),
                "propensity": 0.25,
                "reward": float(rng.random() < 0.3),
            }
            print(json.dumps(row), file=file)
    return path


@pytest.mark.parametrize("name", ["stacked", "linear", "fm", "nfm"])
def test_replay_fit_and_learner_make_the_same_bytes_of_the_same_spec(name: str, log: Path) -> None:
    spec = parse(f"{name}:link=logit,prior_reward=0.3")
    ((run,),) = replay(log, [spec], ReplayOptions("ips"))[1]
    fitted = fit(log, spec, Options(epochs=1))
    shard = Shard(ShardId("home", spec.model), ModelSpec(name, policy_params(name, spec.params).model_dump()), batch=64)
    for examples in Passes(log, spec.view(next(batches(log)))).in_order(keep=False):
        shard._state.policy.learn(examples)  # type: ignore[attr-defined]
    learned = shard.tensors()
    assert same_bytes(run._policy.tensors(), learned)
    assert same_bytes(fitted.policy.tensors(), learned)
