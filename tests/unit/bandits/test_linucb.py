"""LinUCB against its equations, solved directly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from banditmesh.bandits.arms import RETIRE_EVERY
from banditmesh.bandits.batch import Candidates, Examples, Scores, SparseRows
from banditmesh.bandits.errors import NotMergeable
from banditmesh.bandits.hashing import numeric_id
from banditmesh.bandits.linucb import Linucb, LinucbParams
from banditmesh.bandits.projection import NamedFields, SignedProjection
from benchmarks import rejection_replay

from .batches import KEYS, candidates, examples, sparse_rows
from .laws import same_bytes


def vectors(features: SparseRows, dimension: int) -> np.ndarray:
    x = SignedProjection(dimension).rows(features)
    x[:, 0] = 1.0
    return x


def units(learned: np.ndarray) -> np.ndarray:
    """The diagonal of U: of the root mean square of what is not 0, the nearest power of 2."""
    count = np.maximum((learned != 0).sum(axis=0), 1)
    size = np.sqrt((learned**2).sum(axis=0) / count)
    return np.exp2(np.round(np.log2(np.where(size > 0, size, 1.0))))


@pytest.mark.parametrize("arm", ["content", "logic", "service"])
@pytest.mark.parametrize("counts", [[1], [3, 0, 5], [300, 2]], ids=["one", "few", "many"])
def test_mean_and_deviation_solve_the_normal_equations(arm: str, counts: list[int]) -> None:
    rng = np.random.default_rng(5)
    params = LinucbParams.model_validate({"arm": arm, "dimension": 6, "ridge": 0.7, "prior_reward": 0.25, "noise": 0.3})
    policy, seen, asked = Linucb(params), examples(rng, 80), candidates(rng, counts)
    policy.learn(seen)
    scores = policy.score(asked)
    learned = vectors(seen.features, 6)
    owner = np.repeat(np.arange(len(counts)), counts)
    x = vectors(asked.context.take(owner).beside(asked.features), 6)
    keys = {"content": "contents", "logic": "logics", "service": "services"}[arm]
    for i, key in enumerate(getattr(asked, keys)):
        mine = getattr(seen, keys) == key
        precision = 0.7 * np.diag(units(learned) ** 2) + learned[mine].T @ learned[mine]
        moment = learned[mine].T @ (seen.rewards[mine] - 0.25)
        assert scores.mean[i] == pytest.approx(0.25 + x[i] @ np.linalg.solve(precision, moment), abs=1e-5)
        assert scores.deviation[i] == pytest.approx(0.3 * np.sqrt(x[i] @ np.linalg.solve(precision, x[i])), abs=1e-5)


def same_arms(rng: np.random.Generator, n: int, arms: np.ndarray) -> Candidates:
    """n decisions between these arms, by their context alone."""
    keys = np.tile(arms, n)
    return Candidates(np.arange(n + 1) * len(arms), keys, keys, keys, sparse_rows(rng, n), SparseRows.empty(len(keys)))


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("arms", [KEYS, KEYS[[4, 0, 0]], np.append(KEYS, np.uint64(555))], ids=["all", "some", "new"])
def test_decisions_between_the_same_arms_solve_the_normal_equations_too(n: int, arms: np.ndarray) -> None:
    rng = np.random.default_rng(8)
    policy, seen, asked = Linucb(LinucbParams(dimension=6, noise=1.0)), examples(rng, 80), same_arms(rng, n, arms)
    policy.learn(seen)
    scores = policy.score(asked)
    learned, x = vectors(seen.features, 6), np.repeat(vectors(asked.context, 6), len(arms), axis=0)
    prior, ridge = (seen.rewards.sum() + 0.5) / 81, np.diag(units(learned) ** 2)
    for i, key in enumerate(asked.contents):
        mine = learned[seen.contents == key]
        precision, moment = ridge + mine.T @ mine, mine.T @ (seen.rewards[seen.contents == key] - prior)
        assert scores.mean[i] == pytest.approx(prior + x[i] @ np.linalg.solve(precision, moment), abs=1e-5)
        assert scores.deviation[i] == pytest.approx(np.sqrt(x[i] @ np.linalg.solve(precision, x[i])), abs=1e-5)


def test_decisions_between_as_many_other_arms_score_as_each_alone() -> None:
    rng = np.random.default_rng(10)
    policy = Linucb(LinucbParams(dimension=4))
    policy.learn(examples(rng, 80))
    keys, context = KEYS[[0, 1, 2, 0, 3, 2]], sparse_rows(rng, 2)
    both = policy.score(Candidates(np.array([0, 3, 6]), keys, keys, keys, context, SparseRows.empty(6)))
    last = Candidates(np.array([0, 3]), keys[3:], keys[3:], keys[3:], context.part(1, 2), SparseRows.empty(3))
    np.testing.assert_allclose(policy.score(last), [both.mean[3:], both.deviation[3:]], rtol=1e-5)


def test_decisions_between_more_arms_than_are_read_at_once_score_as_each_arm_alone() -> None:
    rng = np.random.default_rng(9)
    policy, arms = Linucb(LinucbParams(dimension=4)), np.arange(150, dtype=np.uint64)
    rows, n = sparse_rows(rng, 600), 600
    keys = rng.permutation(np.tile(arms, 4))
    policy.learn(Examples(keys, keys, keys, rows, rng.random(n), np.ones(n), np.zeros(n), np.ones(n, bool)))
    together = policy.score(same_arms(np.random.default_rng(1), 3, arms))
    for arm in (0, 63, 64, 149):
        alone = policy.score(same_arms(np.random.default_rng(1), 3, arms[arm : arm + 1]))
        np.testing.assert_allclose(together.mean[arm::150], alone.mean, rtol=1e-5)
        np.testing.assert_allclose(together.deviation[arm::150], alone.deviation, rtol=1e-5)


def test_an_unseen_arm_has_the_prior_reward_and_the_deviation_of_the_prior() -> None:
    policy = Linucb(LinucbParams(ridge=4.0, prior_reward=0.5, noise=1.0))
    new = np.array([555], np.uint64)
    features = SparseRows.from_lists([[(7, 2.0)]])
    scores = policy.score(Candidates.checked([0, 1], new, new, new, SparseRows.empty(1), features))
    assert scores.mean.tolist() == [0.5]
    assert scores.deviation.tolist() == pytest.approx([((1 + 4) / 4) ** 0.5])


def test_an_old_example_counts_half_after_a_half_life_for_every_arm() -> None:
    policy = Linucb(LinucbParams(dimension=2, half_life="100s", prior_reward=0.0, noise=1.0))
    keys = np.array([1, 2], np.uint64)
    none = SparseRows.empty(2)
    batch = Examples.checked(keys, keys, keys, none, [1.0, 0.0], [1.0, 1.0], [1000.0, 1100.0], [True, False])
    policy.learn(batch)
    scores = policy.score(Candidates.checked([0, 2], keys, keys, keys, SparseRows.empty(1), none))
    # Arm 1 has weight 1/2 with reward 1: A = 1.5, b = 0.5.
    assert scores.mean[0] == pytest.approx(0.5 / 1.5)
    assert scores.deviation.tolist() == pytest.approx([1.5**-0.5, 2.0**-0.5])


def test_the_deviation_in_a_well_known_direction_is_exact_beside_an_unknown_one() -> None:
    policy = Linucb(LinucbParams(dimension=8, noise=1.0))
    n = 100_000
    key = np.full(n, 9, np.uint64)
    policy.learn(
        Examples.checked(
            key, key, key, SparseRows.empty(n), np.ones(n), np.ones(n), np.arange(n, dtype=float), np.ones(n, bool)
        )
    )
    one = key[:1]
    scores = policy.score(Candidates.checked([0, 1], one, one, one, SparseRows.empty(1), SparseRows.empty(1)))
    assert scores.deviation[0] == pytest.approx((n + 1) ** -0.5, rel=1e-4)


def test_candidates_of_one_arm_under_one_context_tie() -> None:
    rng = np.random.default_rng(2)
    policy = Linucb(LinucbParams(arm="logic"))
    policy.learn(examples(rng, 200))
    n = 37
    logics = np.full(n, 3, np.uint64)
    context = SparseRows.from_lists([[(7, 1.0), (99, -0.3)]])
    scores = policy.score(Candidates.checked([0, n], np.arange(n), logics, logics, context, SparseRows.empty(n)))
    np.testing.assert_allclose(scores.mean, scores.mean[0], rtol=2e-7)
    np.testing.assert_allclose(scores.deviation, scores.deviation[0], rtol=2e-7)


def test_arms_beyond_the_limit_are_retired_oldest_first() -> None:
    policy = Linucb(LinucbParams(dimension=2, max_arms=10))
    n = RETIRE_EVERY
    keys = np.arange(n, dtype=np.uint64)[::-1]
    policy.learn(
        Examples.checked(
            keys, keys, keys, SparseRows.empty(n), np.ones(n), np.ones(n), np.arange(n, dtype=float), np.ones(n, bool)
        )
    )
    assert policy.tensors()["arms"].tolist() == list(range(10))


def test_arms_that_nobody_has_shown_for_long_are_retired() -> None:
    policy = Linucb(LinucbParams(dimension=2, retire_after="50s"))
    n = RETIRE_EVERY
    keys = np.where(np.arange(n) == 0, 1, 2).astype(np.uint64)
    policy.learn(
        Examples.checked(
            keys, keys, keys, SparseRows.empty(n), np.ones(n), np.ones(n), np.arange(n, dtype=float), np.ones(n, bool)
        )
    )
    assert policy.tensors()["arms"].tolist() == [2]


@pytest.mark.parametrize("half_life", [None, "1000s"])
def test_retirement_does_not_depend_on_how_the_stream_was_cut_or_watched(half_life: str | None) -> None:
    rng = np.random.default_rng(3)
    n = 3 * RETIRE_EVERY
    keys = rng.integers(0, 200, n).astype(np.uint64)
    times = np.arange(n) + 0.5
    stream = Examples.checked(
        keys, keys, keys, sparse_rows(rng, n), rng.random(n), np.ones(n), times, np.zeros(n, bool)
    )
    params = LinucbParams(dimension=3, max_arms=50, retire_after="400s", half_life=half_life)
    whole, parts = Linucb(params), Linucb(params)
    whole.learn(stream)
    for rows in np.split(np.arange(n), [100, RETIRE_EVERY, RETIRE_EVERY + 1, 2500]):
        parts.learn(stream.take(rows))
        parts.tensors()
    assert len(whole.tensors()["arms"]) == 50
    assert same_bytes(whole.tensors(), parts.tensors())


def test_features_of_absurd_size_leave_the_other_arms_alone() -> None:
    policy = Linucb(LinucbParams(dimension=4))
    keys = np.array([1, 2, 1, 2], np.uint64)
    huge = SparseRows.from_lists([[(7, 3e38), (99, 1e-3)], [(7, 1.0)], [(7, 3e38), (99, 3e38)], [(99, 1.0)]])
    policy.learn(
        Examples.checked(keys, keys, keys, huge, [1.0, 1.0, 0.0, 1.0], [1.0] * 4, [1.0, 2.0, 3.0, 4.0], [True] * 4)
    )
    pair = keys[:2]
    context = SparseRows.from_lists([[(7, 1.0)]])
    scores = policy.score(Candidates.checked([0, 2], pair, pair, pair, context, SparseRows.empty(2)))
    assert np.isfinite(scores.deviation).all()
    assert scores.mean[1] > 0.5


def test_a_candidate_that_overflows_is_not_finite_and_the_others_are() -> None:
    policy = Linucb(LinucbParams(dimension=4))
    pair = np.array([1, 2], np.uint64)
    features = SparseRows.from_lists([[(7, 3e38), (7, 3e38)], [(7, 1.0)]])
    scores = policy.score(Candidates.checked([0, 2], pair, pair, pair, SparseRows.empty(1), features))
    assert scores.usable().tolist() == [False, True]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_features_makes_no_difference(scale: float) -> None:
    rng = np.random.default_rng(4)
    seen, asked = examples(rng, 80), candidates(rng, [5])

    def scores(scale: float) -> Scores:
        policy = Linucb(LinucbParams(dimension=6))
        policy.learn(replace(seen, features=scaled(seen.features, scale)))
        return policy.score(
            replace(asked, features=scaled(asked.features, scale), context=scaled(asked.context, scale))
        )

    np.testing.assert_allclose(scores(scale).mean, scores(1.0).mean, atol=0.02)
    np.testing.assert_allclose(scores(scale).deviation, scores(1.0).deviation, rtol=0.2)  # units are rounded


def scaled(rows: SparseRows, scale: float) -> SparseRows:
    return SparseRows(rows.offsets, rows.ids, (rows.values * scale).astype(np.float32))


def test_where_clicks_are_rare_a_new_arm_is_expected_to_be_clicked_as_rarely() -> None:
    rng = np.random.default_rng(4)
    seen = examples(rng, 500)
    seen.rewards[:] = rng.random(500) < 0.01
    policy = Linucb()
    policy.learn(seen)
    new = np.array([555], np.uint64)
    scores = policy.score(Candidates.checked([0, 1], new, new, new, SparseRows.empty(1), SparseRows.empty(1)))
    assert scores.mean[0] == pytest.approx(0.01, abs=0.01)
    assert 0.05 < scores.deviation[0] < 0.2


def test_other_parameters_do_not_merge() -> None:
    with pytest.raises(NotMergeable, match="parameters differ"):
        Linucb(LinucbParams(ridge=1.0)).merge(Linucb(LinucbParams(ridge=2.0)))


def test_projection_keeps_inner_products_on_average() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**32, (4000, 6), dtype=np.uint32)
    left = SparseRows(np.arange(4001) * 4, ids[:, :4].ravel(), np.ones(16000, np.float32))
    right = SparseRows(np.arange(4001) * 4, ids[:, 2:].ravel(), np.ones(16000, np.float32))
    project = SignedProjection(32)
    products = (project.rows(left) * project.rows(right)).sum(axis=1)
    assert products.mean() == pytest.approx(2.0, abs=0.05)


FIELDS = ("x0", "x1", "x2")


def test_dense_fields_are_the_vector_in_their_order_and_nothing_else_counts() -> None:
    ids = {name: numeric_id(name) for name in FIELDS}
    rows = SparseRows.from_lists(
        [[(ids["x2"], 3.0), (12345, 9.0), (ids["x0"], 1.0)], [], [(ids["x1"], 2.0), (ids["x1"], 5.0)]]
    )
    assert NamedFields(FIELDS).rows(rows).tolist() == [[1, 0, 3], [0, 0, 0], [0, 7, 0]]


def test_complete_dense_fields_are_read_alike_in_any_order() -> None:
    names = (*FIELDS, "x3")
    ids, values = np.array([numeric_id(name) for name in names], np.uint32), np.float32([[1, 2, 3, 4], [5, 6, 7, 8]])
    offsets = np.array([0, 4, 8])
    in_order = SparseRows(offsets, np.tile(ids, 2), values.ravel())
    reverse = SparseRows(offsets, np.tile(ids[::-1], 2), values[:, ::-1].ravel())
    uneven = SparseRows(np.array([0, 3, 8]), np.tile(ids, 2), values.ravel())
    assert NamedFields(names).rows(in_order).tolist() == values.tolist()
    assert NamedFields(names).rows(reverse).tolist() == values.tolist()
    assert NamedFields(names).rows(uneven).tolist() == [[1, 2, 3, 0], [5, 6, 7, 12]]


@pytest.mark.parametrize("given", [["x0..x2"], "x0..x2", ["x0", "x1..x2"], ["x0", "x1", "x2"]])
def test_a_range_of_dense_fields_is_written_out(given: object) -> None:
    assert LinucbParams.model_validate({"dense": given}).dense == FIELDS


def test_a_dense_field_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="stands twice"):
        LinucbParams.model_validate({"dense": ["x0..x3", "x2"]})


@pytest.mark.parametrize(("params", "prior"), [({}, 0.5), ({"dense": FIELDS}, 0.0), ({"prior_reward": 0.1}, 0.1)])
def test_the_prior_reward_is_that_of_being_ignored_or_algorithm_1s(params: dict[str, object], prior: float) -> None:
    policy = Linucb(LinucbParams.model_validate(params))
    assert policy.score(candidates(np.random.default_rng(0), [1])).mean.tolist() == pytest.approx([prior])


def algorithm_1(log: list[tuple[int, np.ndarray, float]], alpha: float) -> list[tuple[int, float]]:
    """The matches (row, reward) of the rejection replay of a log of (shown arm, [n_arms, d] features, reward)."""
    n_arms, d = log[0][1].shape
    a, b, matches = [np.eye(d) for _ in range(n_arms)], [np.zeros(d) for _ in range(n_arms)], []
    for row, (shown, x, reward) in enumerate(log):
        inverses = [np.linalg.inv(each) for each in a]
        p = [x[i] @ inverses[i] @ b[i] + alpha * np.sqrt(x[i] @ inverses[i] @ x[i]) for i in range(n_arms)]
        if int(np.argmax(p)) == shown:
            matches.append((row, reward))
            a[shown] += np.outer(x[shown], x[shown])
            b[shown] += reward * x[shown]
    return matches


@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_dense_linucb_replays_a_log_as_algorithm_1_does(alpha: float) -> None:
    rng = np.random.default_rng(6)
    log = []
    for _ in range(600):
        x, shown = rng.random((4, 3)), int(rng.integers(4))
        log.append((shown, x, float(rng.random() < x[shown, shown % 3])))
    assert rejection_replay.replay(log, FIELDS, alpha) == algorithm_1(log, alpha)
