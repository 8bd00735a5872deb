"""What `linear`, `fm` and `nfm` share, seen through `linear`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from banditmesh.bandits.arms import RETIRE_EVERY
from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.errors import InvalidBatch, InvalidTensors
from banditmesh.bandits.fm import Fm, FmParams
from banditmesh.bandits.hashed import distinct
from banditmesh.bandits.linear import Linear, LinearParams

from .batches import candidates, examples, sparse_rows
from .laws import assert_same_scores, same_bytes


def of_one_arm(features: SparseRows, rewards: np.ndarray, times_s: np.ndarray | None = None) -> Examples:
    n = len(rewards)
    keys = np.full(n, 3, np.uint64)
    times = np.zeros(n) if times_s is None else times_s
    return Examples.checked(keys, keys, keys, features, rewards, np.ones(n), times, np.zeros(n, bool))


def ask(*rows: list[tuple[int, float]], key: int = 3) -> Candidates:
    n = len(rows)
    keys = np.full(n, key, np.uint64)
    return Candidates.checked([0, n], keys, keys, keys, SparseRows.empty(1), SparseRows.from_lists(rows))


def test_batches_grow_with_what_was_seen_and_at_most_a_64th_waits() -> None:
    policy = Linear(LinearParams(batch=64))
    rng = np.random.default_rng(0)
    for seen in range(1, 2000):
        policy.learn(examples(rng, 1))
        waiting = len(policy.tensors()["waiting_rewards"])
        assert waiting <= min(seen // 64, 63)
        assert int(policy.tensors()["examples"][0]) == seen - waiting


def test_what_waits_is_saved_and_counts_as_soon_as_a_batch_is_full() -> None:
    rng = np.random.default_rng(1)
    batch = examples(rng, 600)
    whole, saved = Linear(), Linear()
    whole.learn(batch)
    saved.learn(batch.take(np.arange(255)))
    assert len(saved.tensors()["waiting_rewards"]) > 0
    loaded = Linear.from_tensors(saved.params, saved.tensors())
    loaded.learn(batch.take(np.arange(255, 600)))
    assert same_bytes(whole.tensors(), loaded.tensors())


def test_waiting_examples_that_do_not_fit_are_refused() -> None:
    policy = Linear()
    policy.learn(examples(np.random.default_rng(1), 63))
    saved = policy.tensors()
    with pytest.raises(InvalidTensors, match="do not cut waiting_ids"):
        Linear.from_tensors(policy.params, {**saved, "waiting_offsets": saved["waiting_offsets"] + 1})


def test_scoring_in_blocks_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    for policy in (Linear(), Fm()):
        policy.learn(examples(rng, 200))
        batch = candidates(rng, [300, 0, 700, 5, 0, 600, 0])
        scores = policy.score(batch)
        for decision in range(7):
            start, stop = batch.offsets[decision : decision + 2]
            rows = np.arange(start, stop)
            alone = replace(
                batch,
                offsets=np.array([0, stop - start]),
                contents=batch.contents[rows],
                logics=batch.logics[rows],
                services=batch.services[rows],
                context=batch.context.part(decision, decision + 1),
                features=batch.features.take(rows),
            )
            np.testing.assert_allclose(policy.score(alone).mean, scores.mean[rows], rtol=1e-4, atol=1e-5)


def test_link_logit_refuses_a_reward_outside_its_range_and_says_what_to_do() -> None:
    policy = Linear(LinearParams(link="logit"))
    with pytest.raises(InvalidBatch, match=r"3\.0 is not in \[0, 1\].*use identity") as refused:
        policy.learn(of_one_arm(SparseRows.empty(2), np.array([1.0, 3.0])))
    assert refused.value.field == "rewards"
    assert len(policy.tensors()["waiting_rewards"]) == 0


@pytest.mark.parametrize("params", [{"batch": 100}, {"link": "logit", "prior_reward": 1.0}, {"arm": "user"}])
def test_parameters_that_make_no_sense_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LinearParams.model_validate(params)


@pytest.mark.parametrize("link", ["identity", "logit"])
def test_before_anything_is_known_the_prior_reward_is_expected(link: str) -> None:
    policy = Linear(LinearParams.model_validate({"link": link, "prior_reward": 0.2}))
    assert policy.score(ask([(7, 1.0)])).mean.tolist() == pytest.approx([0.2])


def test_without_an_arm_feature_only_the_given_features_count() -> None:
    rng = np.random.default_rng(3)
    blind = Linear(LinearParams(arm="none"))
    blind.learn(examples(rng, 100))
    assert_same_scores(blind.score(ask([(7, 1.0)], key=3)), blind.score(ask([(7, 1.0)], key=17)))


def test_the_noise_is_that_of_the_residuals_unless_it_is_given() -> None:
    rng = np.random.default_rng(4)
    rows, rewards = SparseRows.from_lists([[(1, 1.0)]] * 4096), rng.normal(0.5, 0.1, 4096)
    first, learned, given = Linear(), Linear(), Linear(LinearParams(noise=0.1))
    assert first.score(ask([(1, 1.0)])).deviation[0] == pytest.approx(0.5 * np.sqrt(2 / 3.0))  # feature, arm
    for policy in (learned, given):
        policy.learn(of_one_arm(rows, rewards))
    doubt, wanted = (policy.score(ask([(1, 1.0)])).deviation[0] for policy in (learned, given))
    assert doubt == pytest.approx(wanted, rel=0.1)


def test_features_not_seen_for_long_are_retired() -> None:
    n = RETIRE_EVERY
    rows = SparseRows.from_lists([[(1 if row < n // 2 else 2, 1.0)] for row in range(n)])
    policy = Linear(LinearParams(arm="none", retire_after="100s", batch=1))
    policy.learn(of_one_arm(rows, np.ones(n), np.arange(n, dtype=float)))
    assert policy.tensors()["ids"].tolist() == [2]


def test_features_beyond_the_limit_are_retired_oldest_first() -> None:
    n = RETIRE_EVERY
    rows = SparseRows.from_lists([[(n - row, 1.0)] for row in range(n)])
    policy = Linear(LinearParams(arm="none", max_features=10, batch=64))
    policy.learn(of_one_arm(rows, np.ones(n), np.arange(n, dtype=float)))
    assert policy.tensors()["ids"].tolist() == list(range(1, 11))


def test_evidence_counts_half_after_a_half_life() -> None:
    params = LinearParams(arm="none", half_life="1000s", ridge=1.0, batch=1)
    policy = Linear(params)
    n = 100
    rows = SparseRows.from_lists([[(1, 1.0)]] * n)
    policy.learn(of_one_arm(rows, np.ones(n), np.zeros(n)))
    later = SparseRows.from_lists([[(2, 1.0)]])
    policy.learn(of_one_arm(later.take(np.zeros(6, np.int64)), np.ones(6), np.full(6, 1000.0)))
    saved = policy.tensors()
    assert saved["precision"][1] == pytest.approx(1.0 + n / 2)


@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_distinct_adds_up_what_stands_twice_in_a_row(seed: int, n: int) -> None:
    rows = sparse_rows(np.random.default_rng(seed), n, longest=4)
    once = distinct(rows)
    for row in range(n):
        given, kept = rows.part(row, row + 1), once.part(row, row + 1)
        wanted: dict[int, float] = {}
        for identifier, value in zip(given.ids.tolist(), given.values.tolist(), strict=True):
            wanted[identifier] = wanted.get(identifier, 0.0) + value
        assert dict(zip(kept.ids.tolist(), kept.values.tolist(), strict=True)) == pytest.approx(wanted)
        assert len(kept.ids) == len(wanted)


def test_a_model_of_another_width_is_refused() -> None:
    saved = Fm(FmParams(factors=4)).tensors()
    with pytest.raises(InvalidTensors, match="factors: has shape"):
        Fm.from_tensors(FmParams(factors=5), saved)


@pytest.mark.parametrize("apart", [0, 1, 6])
def test_distinct_finds_the_one_id_that_stands_twice_among_many_rows_of_one_length(apart: int) -> None:
    ids = np.arange(300 * 7, dtype=np.uint32)
    ids[7 * 123 + apart] = ids[7 * 123]
    rows = SparseRows(np.arange(301) * 7, ids, np.ones(len(ids), np.float32))
    once = distinct(rows)
    assert len(once.ids) == len(ids) - bool(apart)
    assert sorted(once.part(123, 124).values.tolist()) == ([1.0] * 5 + [2.0] if apart else [1.0] * 7)
