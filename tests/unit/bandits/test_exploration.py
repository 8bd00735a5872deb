"""Laws of every registered exploration, and what each one promises by itself."""

from __future__ import annotations

from itertools import pairwise
from math import erf, hypot, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.base import Exploration
from banditmesh.bandits.exploration.choice import choose, rank
from banditmesh.bandits.exploration.epsilon_greedy import EpsilonGreedy
from banditmesh.bandits.exploration.greedy import Greedy
from banditmesh.bandits.exploration.softmax import Softmax
from banditmesh.bandits.exploration.thompson import Thompson, probability_of_best
from banditmesh.bandits.exploration.ucb import Ucb
from banditmesh.bandits.exploration.zipf import Zipf
from banditmesh.bandits.registry import EXPLORATIONS, build_exploration

from .batches import candidate_counts, generators

every_exploration = pytest.mark.parametrize("name", sorted(EXPLORATIONS))
some = settings(max_examples=40, deadline=None)


def scores_of(mean: list[float], deviation: list[float] | None = None) -> Scores:
    return Scores(np.array(mean, np.float32), np.array(deviation or [0.0] * len(mean), np.float32))


def one(exploration: Exploration, mean: list[float], deviation: list[float] | None = None) -> list[float]:
    """The probabilities of a single decision."""
    return exploration.probabilities(scores_of(mean, deviation), np.array([0, len(mean)])).tolist()  # type: ignore[no-any-return]


def random_scores(rng: np.random.Generator, n: int) -> Scores:
    scale = 10.0 ** rng.integers(-4, 5)
    mean = (scale * rng.normal(size=n)).astype(np.float32)
    deviation = (scale * 10.0 ** rng.integers(-3, 2, n)).astype(np.float32)
    deviation[rng.random(n) < 0.2] = 0
    broken = rng.random(n) < rng.choice([0.0, 0.2, 1.0])
    mean[broken] = rng.choice([np.nan, np.inf, -np.inf], broken.sum())
    return Scores(mean, deviation)


@every_exploration
@some
@given(rng=generators(), counts=candidate_counts(), floor=st.sampled_from([0.0, 0.05, 1.0]))
def test_probabilities_sum_to_one_and_the_floor_keeps_everybody(
    name: str, rng: np.random.Generator, counts: list[int], floor: float
) -> None:
    offsets = np.cumsum([0, *counts])
    probabilities = build_exploration(name, {"floor": floor}).probabilities(random_scores(rng, offsets[-1]), offsets)
    assert (probabilities >= 0).all()
    expected = [1.0 if count else 0.0 for count in counts]
    np.testing.assert_allclose(segments.sums(probabilities, offsets), expected, atol=1e-9)
    assert (probabilities >= np.repeat(floor / np.maximum(counts, 1), counts) - 1e-12).all()


@every_exploration
@some
@given(rng=generators(), n=st.sampled_from([1, 2, 10, 100]))
def test_probabilities_are_permutation_equivariant(name: str, rng: np.random.Generator, n: int) -> None:
    scores, offsets, order = random_scores(rng, n), np.array([0, n]), rng.permutation(n)
    exploration = build_exploration(name)
    shuffled = exploration.probabilities(Scores(scores.mean[order], scores.deviation[order]), offsets)
    np.testing.assert_allclose(exploration.probabilities(scores, offsets)[order], shuffled, atol=1e-9)


@every_exploration
def test_equal_candidates_are_equally_likely(name: str) -> None:
    assert one(build_exploration(name), [0.3] * 4, [0.2] * 4) == pytest.approx([0.25] * 4)
    assert one(build_exploration(name), [0.0] * 3) == pytest.approx([1 / 3] * 3)
    assert one(build_exploration(name), [0.7]) == pytest.approx([1.0])


@every_exploration
def test_candidates_that_differ_by_a_rounding_are_equally_likely(name: str) -> None:
    best = np.float32(0.7)
    assert one(build_exploration(name), [float(best), float(np.nextafter(best, np.float32(1)))]) == pytest.approx(
        [0.5, 0.5], abs=0.05
    )


@every_exploration
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_ranks_last(name: str, broken: float) -> None:
    assert one(build_exploration(name, {"floor": 0.0}), [broken, -5.0], [0.1, 0.1]) == pytest.approx([0.0, 1.0])
    assert one(build_exploration(name, {"floor": 0.0}), [1.0, -5.0], [broken, 0.1]) == pytest.approx([0.0, 1.0])
    floored = one(build_exploration(name, {"floor": 0.2}), [broken, -5.0], [0.1, 0.1])
    assert floored == pytest.approx([0.1, 0.9])


@every_exploration
def test_a_decision_without_any_finite_score_is_uniform(name: str) -> None:
    scores = scores_of([np.nan, np.inf, 1.0, 0.0], [0.0, 0.0, 0.1, 0.1])
    alone = build_exploration(name, {"floor": 0.0}).probabilities(scores, np.array([0, 2, 4]))
    assert alone[:2].tolist() == [0.5, 0.5]


def test_greedy_takes_the_highest_mean() -> None:
    assert one(Greedy(), [0.1, 0.5, 0.5], [9.0, 0.0, 0.0]) == [0.0, 0.5, 0.5]


def test_ucb_adds_alpha_deviations() -> None:
    assert one(Ucb(alpha=1.0, floor=0.0), [0.5, 0.2], [0.1, 0.5]) == [0.0, 1.0]
    assert one(Ucb(alpha=0.5, floor=0.0), [0.5, 0.2], [0.1, 0.5]) == [1.0, 0.0]


def test_epsilon_greedy_gives_epsilon_to_all() -> None:
    assert one(EpsilonGreedy(epsilon=0.3), [0.1, 0.5, 0.2]) == pytest.approx([0.1, 0.8, 0.1])
    assert one(EpsilonGreedy(epsilon=0.3, floor=0.5), [0.1, 0.5]) == pytest.approx(
        [0.5 * 0.15 + 0.25, 0.5 * 0.85 + 0.25]
    )


def test_zipf_sees_the_order_alone_and_ties_share_their_ranks() -> None:
    assert one(Zipf(), [-900.0, 3.0, 2.9]) == pytest.approx([2 / 11, 6 / 11, 3 / 11])
    assert one(Zipf(exponent=2.0), [0.1, 0.2]) == pytest.approx([0.2, 0.8])
    assert one(Zipf(), [0.5, 0.1, 0.5]) == pytest.approx([9 / 22, 4 / 22, 9 / 22])


@every_exploration
def test_only_ucb_has_a_bonus_and_it_is_what_decides(name: str) -> None:
    exploration = build_exploration(name, {"alpha": 2.0} if name == "ucb" else {})
    bonus = exploration.bonus(scores_of([0.5, 0.2], [0.1, 0.5])).tolist()
    assert bonus == pytest.approx([0.2, 1.0] if name == "ucb" else [0.0, 0.0])


def test_softmax_odds_follow_the_temperature_without_overflow() -> None:
    probabilities = one(Softmax(temperature=0.5), [1000.0, 1000.5])
    assert probabilities[1] / probabilities[0] == pytest.approx(np.e)
    assert one(Softmax(temperature=1e-6), [0.0, 1e6]) == [0.0, 1.0]


@every_exploration
@some
@given(rng=generators(), n=st.sampled_from([1, 2, 30]), decisions=st.integers(1, 5))
def test_decisions_of_one_length_are_as_likely_as_beside_others(
    name: str, rng: np.random.Generator, n: int, decisions: int
) -> None:
    scores, exploration = random_scores(rng, n * decisions + 7), build_exploration(name)
    beside = exploration.probabilities(scores, np.append(np.arange(decisions + 1) * n, n * decisions + 7))
    part = Scores(scores.mean[:-7], scores.deviation[:-7])
    np.testing.assert_allclose(exploration.probabilities(part, np.arange(decisions + 1) * n), beside[:-7], atol=1e-9)


THOMPSON_CASES = {
    "alike": ([0.1, 0.2, 0.15, 0.0], [0.3, 0.3, 0.3, 0.3]),
    "one well known beside an unknown": ([0.0, 0.1], [0.001, 1.0]),
    "well known ones inside of unknown ones": (
        [-0.007, 0.011, -0.003, 0.002, -0.002],
        [5.1, 0.0067, 0.00034, 0.14, 4.3],
    ),
    "certainties": ([0.3, 0.3, 0.2, 0.1], [0.0, 0.0, 0.0, 0.5]),
    "many": (np.linspace(0, 1, 100).tolist(), np.tile([0.02, 0.5], 50).tolist()),
    "hopeless": ([0.0, 100.0], [0.1, 0.1]),
}


@pytest.mark.parametrize("case", THOMPSON_CASES)
def test_thompson_agrees_with_a_million_draws(case: str) -> None:
    mean, deviation = (np.array(part) for part in THOMPSON_CASES[case])
    rng = np.random.default_rng(11)
    wins = np.zeros(len(mean))
    for _ in range(20):
        draws = mean + deviation * rng.standard_normal((50_000, len(mean)))
        best = draws == draws.max(axis=1, keepdims=True)
        wins += (best / best.sum(axis=1, keepdims=True)).sum(axis=0)
    exact = probability_of_best(mean, deviation, np.array([0, len(mean)]))
    np.testing.assert_allclose(exact, wins / 1e6, atol=0.002)


@some
@given(
    difference=st.floats(-3, 3),
    left=st.floats(1e-4, 10),
    right=st.floats(1e-4, 10),
)
def test_thompson_of_two_is_the_normal_distribution_of_their_difference(
    difference: float, left: float, right: float
) -> None:
    expected = 0.5 * (1 + erf(difference / hypot(left, right) / sqrt(2)))
    got = probability_of_best(np.array([difference, 0.0]), np.array([left, right]), np.array([0, 2]))
    assert got[0] == pytest.approx(expected, abs=0.001)


def test_thompson_of_ten_thousand_equals_is_uniform() -> None:
    n = 10_000
    probabilities = Thompson(scale=1.0).probabilities(
        Scores(np.ones(n, np.float32), np.ones(n, np.float32)), np.array([0, n])
    )
    np.testing.assert_allclose(probabilities, 1 / n, rtol=1e-6)


def test_thompson_of_a_decision_does_not_depend_on_its_batch() -> None:
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 40, 3000)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    mean, deviation = rng.normal(size=offsets[-1]), rng.uniform(0, 1, offsets[-1])
    together = probability_of_best(mean, deviation, offsets)
    for decision in (0, 1, 1500, 2999):
        part = slice(offsets[decision], offsets[decision + 1])
        alone = probability_of_best(mean[part], deviation[part], np.array([0, counts[decision]]))
        np.testing.assert_allclose(together[part], alone, atol=1e-9)


def test_choices_come_as_often_as_their_probabilities() -> None:
    probabilities = np.array([0.0, 0.2, 0.3, 0.5, 0.0])
    n = 20_000
    choice = choose(np.tile(probabilities, n), np.arange(n + 1) * 5, np.random.default_rng(0))
    picked = choice.chosen - np.arange(n) * 5
    shares = np.bincount(picked, minlength=5) / n
    np.testing.assert_allclose(shares, probabilities, atol=4 * 0.5 / n**0.5)
    assert shares[0] == shares[4] == 0
    assert (choice.propensity == probabilities[picked]).all()


@some
@given(rng=generators(), counts=candidate_counts())
def test_what_cannot_be_is_never_chosen(rng: np.random.Generator, counts: list[int]) -> None:
    offsets = np.cumsum([0, *counts])
    probabilities = Greedy().probabilities(random_scores(rng, offsets[-1]), offsets)
    choice = choose(probabilities, offsets, rng)
    for decision, (start, stop) in enumerate(pairwise(offsets)):
        if start == stop:
            assert (choice.chosen[decision], choice.propensity[decision]) == (-1, 0.0)
        else:
            assert start <= choice.chosen[decision] < stop
            assert choice.propensity[decision] == probabilities[choice.chosen[decision]] > 0


@some
@given(rng=generators(), counts=candidate_counts())
def test_the_first_decision_is_drawn_alike_alone_and_before_others(rng: np.random.Generator, counts: list[int]) -> None:
    counts = [*counts, 3]
    offsets = np.cumsum([0, *counts])
    probabilities = Softmax().probabilities(random_scores(rng, offsets[-1]), offsets)
    seed = int(rng.integers(2**32))
    together = choose(probabilities, offsets, np.random.default_rng(seed))
    alone = choose(probabilities[: counts[0]], offsets[:2], np.random.default_rng(seed))
    assert (alone.chosen[0], alone.propensity[0]) == (together.chosen[0], together.propensity[0])


class Extreme:
    """A generator whose every draw is the largest number below 1, or 0."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self, n: int) -> np.ndarray:
        return np.full(n, self.value)


@pytest.mark.parametrize(("draw", "expected"), [(0.0, [1, 5]), (np.nextafter(1.0, 0.0), [2, 6])])
def test_the_ends_of_the_unit_interval_stay_within_their_decision(draw: float, expected: list[int]) -> None:
    probabilities = np.array([0.0, 0.1, 0.9, 0.0, 0.0, 0.7, 0.3, 0.0])
    choice = choose(probabilities, np.array([0, 4, 8]), Extreme(draw))  # type: ignore[arg-type]
    assert choice.chosen.tolist() == expected
    alone = choose(probabilities[:4], np.array([0, 4]), Extreme(draw))  # type: ignore[arg-type]
    assert alone.chosen.tolist() == expected[:1]


def test_a_ranked_list_repeats_nobody_and_ends_where_the_candidates_end() -> None:
    scores = scores_of([0.1, 0.9, 0.5, 0.3, 0.2])
    choice = rank(Greedy(), scores, np.array([0, 3, 3, 5]), 4, np.random.default_rng(0))
    assert choice.chosen.tolist() == [[1, 2, 0, -1], [-1] * 4, [3, 4, -1, -1]]
    assert choice.propensity.tolist() == [[1, 1, 1, 0], [0] * 4, [1, 1, 0, 0]]


def test_the_propensity_of_a_position_is_conditional_on_those_before() -> None:
    n = 6000
    mean = np.tile(np.log([0.5, 0.3, 0.2]), n)
    scores = Scores(mean.astype(np.float32), np.zeros(3 * n, np.float32))
    choice = rank(Softmax(temperature=1.0), scores, np.arange(n + 1) * 3, 2, np.random.default_rng(3))
    lists = choice.chosen - np.arange(n)[:, None] * 3
    first_b_then_a = (lists == [1, 0]).all(axis=1)
    assert first_b_then_a.mean() == pytest.approx(0.3 * 0.5 / 0.7, abs=0.02)
    np.testing.assert_allclose(choice.propensity[first_b_then_a], [[0.3, 0.5 / 0.7]] * first_b_then_a.sum(), rtol=1e-5)


class Restraint:
    """A constraint that does nothing."""

    yields = False

    def blocks(self, before: np.ndarray, free: np.ndarray) -> np.ndarray | None:
        return None

    def shifts(self, before: np.ndarray) -> np.ndarray | None:
        return None


class OneOfEach(Restraint):
    """At most one candidate of each group in a list. ``groups``: int64[n_candidates], numbered over all decisions."""

    def __init__(self, groups: list[int]) -> None:
        self.groups = np.array(groups)

    def blocks(self, before: np.ndarray, free: np.ndarray) -> np.ndarray | None:
        return np.isin(self.groups, self.groups[before[before >= 0]])


class NeverAt(Restraint):
    """Blocks some candidates at one position. ``barred``: bool[n_candidates]."""

    def __init__(self, position: int, barred: list[bool]) -> None:
        self.position, self.barred = position, np.array(barred)

    def blocks(self, before: np.ndarray, free: np.ndarray) -> np.ndarray | None:
        return self.barred if before.shape[1] == self.position else None


EVEN = EpsilonGreedy(epsilon=1.0)


def test_propensities_under_a_constraint_are_those_of_what_is_left_to_draw_from() -> None:
    """Of a, a', b each has 1/3; one of each letter: after a or a' nothing but b is left, after b either is."""
    n = 3000
    scores, groups = scores_of([0.0] * 3 * n), np.repeat(np.arange(n) * 2, 3) + np.tile([0, 0, 1], n)
    ranked = rank(EVEN, scores, np.arange(n + 1) * 3, 3, np.random.default_rng(1), [OneOfEach(groups.tolist())])
    lists = ranked.chosen - np.arange(n)[:, None] * 3
    b_first = lists[:, 0] == 2
    assert set(map(tuple, lists[b_first, :2].tolist())) == {(2, 0), (2, 1)}
    assert set(map(tuple, lists[~b_first, :2].tolist())) == {(0, 2), (1, 2)}
    np.testing.assert_allclose(ranked.propensity[b_first], [[1 / 3, 1 / 2, 0]] * b_first.sum())
    np.testing.assert_allclose(ranked.propensity[~b_first], [[1 / 3, 1, 0]] * (~b_first).sum())
    assert (ranked.chosen[:, 2] == -1).all()
    assert b_first.mean() == pytest.approx(1 / 3, abs=4 * 0.5 / n**0.5)


def test_a_list_ends_where_everything_is_blocked_and_has_no_hole() -> None:
    barred = NeverAt(1, [True, True, True, False, False, False])
    ranked = rank(EVEN, scores_of([0.0] * 6), np.array([0, 3, 6]), 3, np.random.default_rng(1), [barred])
    assert (ranked.chosen >= 0).tolist() == [[True, False, False], [True, True, True]]


def test_several_constraints_block_together() -> None:
    constraints = [NeverAt(0, [True, False, False]), NeverAt(0, [False, True, False])]
    ranked = rank(EVEN, scores_of([0.9, 0.8, 0.0]), np.array([0, 3]), 1, np.random.default_rng(1), constraints)
    assert (ranked.chosen.tolist(), ranked.propensity.tolist()) == ([[2]], [[1.0]])


def test_each_list_is_as_long_as_wanted() -> None:
    wanted = np.array([0, 1, 2, 9])
    ranked = rank(EVEN, scores_of([0.0] * 12), np.arange(5) * 3, 9, np.random.default_rng(1), wanted=wanted)
    assert (ranked.chosen >= 0).sum(axis=1).tolist() == [0, 1, 2, 3]


def test_squarecb_weighs_by_the_inverse_gap_in_deviations_of_the_best() -> None:
    scores = Scores(np.array([0.5, 0.4, 0.1], np.float32), np.array([0.1, 0.9, 0.0], np.float32))
    found = build_exploration("squarecb", {"gamma": 2.0}).probabilities(scores, np.array([0, 3]))
    behind = [1 / (3 + 2 * 3**0.5 * gap / 0.1) for gap in (0.1, 0.4)]
    np.testing.assert_allclose(found, [1 - sum(behind), *behind], rtol=1e-5)


def test_squarecb_is_greedy_where_nothing_is_unsure_and_uniform_where_all_tie() -> None:
    offsets = np.array([0, 2, 4])
    scores = Scores(np.array([0.5, 0.4, 0.3, 0.3], np.float32), np.zeros(4, np.float32))
    found = build_exploration("squarecb", {}).probabilities(scores, offsets)
    np.testing.assert_allclose(found, [1.0, 0.0, 0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_thompsons_scale_multiplies_the_deviations(scale: float) -> None:
    mean, deviation = np.array([0.5, 0.45, 0.2], np.float32), np.array([0.1, 0.2, 0.05], np.float32)
    offsets = np.array([0, 3])
    scaled = build_exploration("thompson", {"scale": scale}).probabilities(Scores(mean, deviation), offsets)
    wider = Scores(mean, (deviation * np.float32(scale)).astype(np.float32))
    np.testing.assert_allclose(
        scaled, build_exploration("thompson", {"scale": 1.0}).probabilities(wider, offsets), atol=1e-6
    )


@pytest.mark.parametrize(("n", "scale"), [(2, 0.02), (10, 0.1), (40, 0.25)])
def test_thompson_without_a_scale_explores_more_the_more_candidates_there_are(n: int, scale: float) -> None:
    rng = np.random.default_rng(n)
    scores = Scores(rng.normal(size=3 + n).astype(np.float32), np.ones(3 + n, np.float32))
    offsets = np.array([0, 3, 3 + n])  # beside a decision of another size
    set_by_itself = build_exploration("thompson", {"scale": None}).probabilities(scores, offsets)
    given = build_exploration("thompson", {"scale": scale}).probabilities(scores, offsets)
    np.testing.assert_allclose(set_by_itself[3:], given[3:], atol=1e-9)
