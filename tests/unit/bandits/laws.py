"""The laws that every policy obeys, each a function of the policy's class and parameters.

`test_laws_of_scores.py` and `test_laws_of_learning.py` apply them to whatever the registry holds: a new policy is
tested by being registered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from banditmesh.bandits.batch import Candidates, Examples, Scores, SparseRows
from banditmesh.bandits.errors import InvalidBatch, InvalidTensors, NotMergeable
from banditmesh.bandits.policy import Policy, Tensors

from .batches import KEYS, candidates, examples

Make = Callable[[], Policy]


def same_bytes(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


def read_only(tensors: Tensors) -> Tensors:
    """As a snapshot that is mapped into memory gives them."""
    for array in tensors.values():
        array.flags.writeable = False
    return tensors


def assert_same_scores(left: Scores, right: Scores, tolerance: float = 0.0) -> None:
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def scores_are_finite_float32_of_the_right_length(
    make: Make, rng: np.random.Generator, counts: list[int], n_examples: int
) -> None:
    policy = make()
    policy.learn(examples(rng, n_examples))
    scores = policy.score(candidates(rng, counts))
    for array in scores:
        assert array.dtype == np.float32
        assert array.shape == (sum(counts),)
        assert np.isfinite(array).all()
    assert (scores.deviation >= 0).all()


def permuted(batch: Candidates, order: np.ndarray) -> Candidates:
    """The only decision of the batch with its candidates in another order."""
    return replace(
        batch,
        contents=batch.contents[order],
        logics=batch.logics[order],
        services=batch.services[order],
        features=batch.features.take(order),
    )


def scoring_is_permutation_equivariant(make: Make, rng: np.random.Generator, n: int) -> None:
    policy = make()
    policy.learn(examples(rng, 50))
    batch = candidates(rng, [n])
    order = rng.permutation(n)
    plain, shuffled = policy.score(batch), policy.score(permuted(batch, order))
    assert_same_scores(Scores(plain.mean[order], plain.deviation[order]), shuffled, tolerance=1e-5)


def a_decision_scores_the_same_alone_and_in_a_batch(make: Make, rng: np.random.Generator, counts: list[int]) -> None:
    policy = make()
    policy.learn(examples(rng, 50))
    batch = candidates(rng, counts)
    together = policy.score(batch)
    for decision, (start, stop) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True)):
        rows = np.arange(start, stop)
        alone = Candidates(
            np.array([0, stop - start]),
            batch.contents[rows],
            batch.logics[rows],
            batch.services[rows],
            batch.context.take(np.array([decision])),
            batch.features.take(rows),
        )
        part = Scores(together.mean[rows], together.deviation[rows])
        assert_same_scores(policy.score(alone), part, tolerance=1e-5)


def learning_moves_the_better_arm_up(make: Make, rng: np.random.Generator) -> None:
    """Of two arms under the same context, the one that earns 1 is afterwards above the one that earns 0."""
    policy = make()
    n = 120
    keys = np.where(np.arange(n) % 2, KEYS[0], KEYS[1])
    context = SparseRows.from_lists([[(7, 1.0), (99, float(rng.normal()))] for _ in range(n)])
    rewards = (keys == KEYS[0]).astype(np.float32)
    batch = Examples.checked(keys, keys, keys, context, rewards, np.full(n, 0.5), np.arange(n), rewards == 1.0)
    pair = KEYS[:2]
    decision = Candidates.checked([0, 2], pair, pair, pair, SparseRows.from_lists([[(7, 1.0)]]), SparseRows.empty(2))
    before = policy.score(decision).mean
    policy.learn(batch)
    after = policy.score(decision)
    assert before[0] == before[1]
    if policy.learns:
        assert after.mean[0] > after.mean[1] + 0.3
    else:
        assert after.mean[0] == after.mean[1]


def tensors_round_trip(make: Make, rng: np.random.Generator, counts: list[int], n_examples: int) -> None:
    """A policy loaded from read-only tensors scores the same bits, gives the same tensors, and learns on alike."""
    policy = make()
    policy.learn(examples(rng, n_examples))
    saved = read_only(policy.tensors())
    for array in saved.values():
        assert array.dtype.kind not in "OU"
        assert not (array.dtype.kind == "f" and not np.isfinite(array).all())
    loaded = type(policy).from_tensors(policy.params, saved)
    assert same_bytes(saved, loaded.tensors())
    batch = candidates(rng, counts)
    assert_same_scores(policy.score(batch), loaded.score(batch))
    more = examples(rng, 30)
    policy.learn(more)
    loaded.learn(more)
    assert same_bytes(policy.tensors(), loaded.tensors())


def replay_gives_the_same_bytes_however_it_is_cut(make: Make, rng: np.random.Generator, n_examples: int) -> None:
    batch = examples(rng, n_examples)
    whole, parts = make(), make()
    whole.learn(batch)
    cuts = np.sort(rng.integers(0, n_examples + 1, 4))
    for rows in np.split(np.arange(n_examples), cuts):
        parts.learn(batch.take(rows))
        parts.score(candidates(rng, [3]))  # looking must not change anything
    assert same_bytes(whole.tensors(), parts.tensors())


def merge_is_the_union_of_examples(make: Make, rng: np.random.Generator, n_examples: int) -> None:
    batch = examples(rng, n_examples)
    half = rng.random(n_examples) < 0.5
    whole, left, right = make(), make(), make()
    whole.learn(batch)
    left.learn(batch.take(np.flatnonzero(half)))
    right.learn(batch.take(np.flatnonzero(~half)))
    if not whole.merges:
        with pytest.raises(NotMergeable):
            left.merge(right)
        return
    left.merge(right)
    decision = candidates(rng, [10])
    assert_same_scores(whole.score(decision), left.score(decision), tolerance=1e-4)
    ours, theirs = left.tensors(), whole.tensors()
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def unseen_arms_score_as_the_prior_or_the_shared_part(make: Make, rng: np.random.Generator) -> None:
    fresh, taught = make(), make()
    taught.learn(examples(rng, 100))
    new = np.array([555, 556], np.uint64)
    features = SparseRows.from_lists([[(4242, 1.0)], [(4242, 1.0)]])
    decision = Candidates.checked([0, 2], new, new, new, SparseRows.empty(1), features)
    scores = taught.score(decision)
    assert scores.usable().all()
    assert scores.mean[0] == scores.mean[1]
    assert scores.deviation[0] == scores.deviation[1]
    if not taught.shares:
        assert_same_scores(fresh.score(decision), scores)


def a_second_epoch_does_not_count_evidence_twice(make: Make, rng: np.random.Generator) -> None:
    once = make()
    batch, decision = examples(rng, 100), candidates(rng, [20])
    once.learn(batch)
    policy = type(once).from_tensors(once.params, read_only(once.tensors()))
    policy.start_epoch()
    if policy.learns and not policy.merges:
        mean, deviation = policy.score(decision)
        before = once.score(decision)
        np.testing.assert_array_equal(mean, before.mean)  # the estimates stay
        assert (deviation >= before.deviation).all()
        if policy.name != "stacked":  # its regressions keep their sums, and are not taught again
            assert deviation.sum() > 1.05 * before.deviation.sum()
    policy.learn(batch)
    if policy.merges:
        assert_same_scores(once.score(decision), policy.score(decision))


def a_feature_given_twice_counts_twice(make: Make, rng: np.random.Generator) -> None:
    policy = make()
    policy.learn(examples(rng, 50))
    keys = KEYS[:1]

    def score(entries: list[tuple[int, float]]) -> Scores:
        rows = SparseRows.from_lists([entries])
        return policy.score(Candidates.checked([0, 1], keys, keys, keys, SparseRows.empty(1), rows))

    assert_same_scores(score([(7, 1.0), (7, 1.0)]), score([(7, 2.0)]), tolerance=1e-6)


def a_broken_number_is_refused_and_changes_nothing(make: Make, rng: np.random.Generator) -> None:
    policy = make()
    policy.learn(examples(rng, 20))
    before = policy.tensors()
    for field in ("rewards", "times_s"):
        broken = examples(rng, 5)
        getattr(broken, field)[3] = np.nan
        if policy.learns:
            with pytest.raises(InvalidBatch) as refused:
                policy.learn(broken)
            assert refused.value.field == field
    assert same_bytes(before, policy.tensors())


def a_broken_feature_is_refused_or_not_looked_at(make: Make, rng: np.random.Generator) -> None:
    policy = make()
    policy.learn(examples(rng, 20))
    before = policy.tensors()
    broken = examples(rng, 40)
    broken.features.values[::9] = rng.choice([np.nan, np.inf, -np.inf])
    refused: InvalidBatch | None = None
    try:
        policy.learn(broken)
    except InvalidBatch as error:
        refused = error
    if refused is not None:
        assert refused.field == "features"
        assert same_bytes(before, policy.tensors())
    for array in policy.tensors().values():
        assert array.dtype.kind != "f" or np.isfinite(array).all()


def features_of_absurd_size_leave_the_rest_alone(make: Make, rng: np.random.Generator) -> None:
    """Neither learning nor scoring them warns, and what is saved stays finite."""
    policy = make()
    absurd = examples(rng, 40)
    absurd.features.values[::7] = 3e38
    policy.learn(examples(rng, 20))
    policy.learn(absurd)
    for array in policy.tensors().values():
        assert array.dtype.kind != "f" or np.isfinite(array).all()
    keys = KEYS[:2]
    rows = SparseRows.from_lists([[(7, 3e38), (99, 3e38)], [(7, 1.0)]])
    both = Candidates.checked([0, 2], keys, keys, keys, SparseRows.empty(1), rows)
    alone = Candidates.checked([0, 1], keys[1:], keys[1:], keys[1:], SparseRows.empty(1), rows.part(1, 2))
    scores = policy.score(both)
    assert_same_scores(Scores(scores.mean[1:], scores.deviation[1:]), policy.score(alone), tolerance=1e-5)
    assert scores.usable()[1]


def rewards_of_absurd_size_leave_a_state_that_can_be_saved(make: Make, rng: np.random.Generator, size: float) -> None:
    """Neither learning nor scoring warns (a warning fails a test), and what is saved is finite."""
    policy = make()
    absurd = examples(rng, 60)
    absurd.rewards[::7] = size
    with suppress(InvalidBatch):
        policy.learn(absurd)
    policy.score(candidates(rng, [5, 3]))
    for array in policy.tensors().values():
        assert array.dtype.kind != "f" or np.isfinite(array).all()


def tensors_that_do_not_fit_are_refused_by_name(make: Make, rng: np.random.Generator) -> None:
    policy = make()
    policy.learn(examples(rng, 20))
    saved = policy.tensors()
    added = getattr(type(policy), "added", frozenset())
    assert added <= saved.keys()
    for name in saved.keys() - added:
        with pytest.raises(InvalidTensors) as missing:
            type(policy).from_tensors(policy.params, {key: saved[key] for key in saved if key != name})
        assert missing.value.field == name
    for name in saved:
        with pytest.raises(InvalidTensors):
            type(policy).from_tensors(policy.params, {**saved, name: saved[name][None]})
