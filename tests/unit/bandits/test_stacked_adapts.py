"""What the default policy sets by itself: how wide the prior of its weights is, and what it gives up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from banditmesh.bandits import calibration, prior_width
from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.fm import Fm
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.registry import build
from banditmesh.bandits.stacked import Stacked
from banditmesh.bandits.surprise import noticed
from banditmesh.bandits.table import Grouping

CATEGORIES, ARMS, RATE = 5, 300, 0.1


def shown(arms: np.ndarray, rewards: np.ndarray, categories: np.ndarray) -> Examples:
    """Examples of arms, each with its category as its only feature."""
    n = len(arms)
    keys = arms.astype(np.uint64) + 1000
    rows = SparseRows(np.arange(n + 1), categories[arms].astype(np.uint32) + 5, np.ones(n, np.float32))
    return Examples(keys, keys, keys, rows, rewards.astype(np.float32), np.ones(n), np.arange(n) * 1.0, rewards > 0)


def between(arms: np.ndarray, categories: np.ndarray) -> Candidates:
    """One decision between these arms."""
    keys = arms.astype(np.uint64) + 1000
    rows = SparseRows(np.arange(len(arms) + 1), categories[arms].astype(np.uint32) + 5, np.ones(len(arms), np.float32))
    return Candidates(np.array([0, len(arms)]), keys, keys, keys, SparseRows.empty(1), rows)


def rare_clicks(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, Examples]:
    """The chance of a click of each arm, its category, and n examples of arms drawn at random."""
    rng = np.random.default_rng(seed)
    categories = rng.integers(CATEGORIES, size=ARMS)
    of_category = rng.normal(0, 0.04, CATEGORIES)
    chances = np.clip(RATE + of_category[categories] + rng.normal(0, 0.03, ARMS), 0.005, 1.0)
    arms = rng.integers(ARMS, size=n)
    return chances, categories, shown(arms, rng.random(n) < chances[arms], categories)


@pytest.mark.parametrize("name", ["linear", "fm", "nfm", "stacked"])
def test_the_luck_of_a_few_clicks_is_believed_no_more_than_arms_differ(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = np.arange(ARMS)
    chances, categories, examples = rare_clicks(0, 2_000)

    def error() -> float:
        policy = build(name)
        policy.learn(examples)
        return float(np.var(policy.score(between(asked, categories)).mean - chances))

    now = error()
    monkeypatch.setattr(prior_width, "due", lambda before, now: False)
    assert now < 0.6 * error()


def test_the_width_of_a_prior_is_that_of_the_weights() -> None:
    rng = np.random.default_rng(0)
    prior, noise, spread = 3.0, 0.09, 0.05  # so that p should be 36
    counts = rng.integers(1, 60, 2_000)
    true = rng.normal(0, spread, len(counts))
    seen = true + rng.normal(0, 1, len(counts)) * np.sqrt(noise / counts)
    for _ in range(12):
        precision = (prior + counts).astype(np.float32)
        prior = prior_width.width((seen * counts / precision).astype(np.float32), precision, prior, 3.0, noise)
    assert prior == pytest.approx(noise / spread**2, rel=0.15)


def test_widths_are_read_at_numbers_of_examples_that_do_not_depend_on_how_they_were_cut() -> None:
    reached = [n for n in range(1, 3_000) if prior_width.due(n - 1, n)]
    assert reached[:4] == [16, 18, 20, 22]
    assert all(after <= 1.13 * before for before, after in pairwise(reached))
    assert sum(prior_width.due(n - 1, n) for n in range(1_024, 2_048)) == 8


def of_one_feature(residuals: np.ndarray, precision: float) -> float:
    """The precision of its weight after mini-batches of 16 examples with these residuals, in units of the noise."""
    sums, now = np.zeros((1, 2)), np.array([precision])
    for part in residuals.reshape(-1, 16):
        entries = np.ones(16, np.int32)
        step = Step(
            offsets=np.arange(17),
            owner=np.arange(16),
            entries=entries,
            new=np.zeros(0, np.int32),
            group=Grouping.of(entries),
            x=np.ones(16, np.float32),
            share=np.ones(1),
            rewards=np.zeros(16),
            crossed=np.zeros(16, np.bool_),
        )
        sums, now = noticed(step, part, sums, now + 16.0, np.full(1, 3.0), 1.0)
    return float(now[0])


def test_evidence_is_given_up_when_residuals_lean_to_one_side_and_else_kept() -> None:
    rng = np.random.default_rng(0)
    chance = rng.normal(0, 1, 320)
    assert of_one_feature(chance - chance.reshape(-1, 16).mean(axis=1).repeat(16), 1_000.0) == 1_320.0
    assert of_one_feature(chance + 0.7, 1_000.0) < 400.0


def preferred(policy: Stacked | Fm, categories: np.ndarray) -> np.ndarray:
    """The mean of each category, by its arms."""
    mean = policy.score(between(np.arange(ARMS), categories)).mean
    return np.array([mean[categories == each].mean() for each in range(CATEGORIES)])


def test_after_a_shift_it_follows_far_sooner_than_a_policy_that_never_forgets() -> None:
    rng = np.random.default_rng(1)
    categories = rng.integers(CATEGORIES, size=ARMS)
    chances = np.linspace(0.1, 0.5, CATEGORIES)
    off = {}
    for kind in (Stacked, Fm):
        policy, draws = kind(), np.random.default_rng(2)
        for n, truth in ((6_000, chances), (1_024, chances[::-1])):
            arms = draws.integers(ARMS, size=n)
            policy.learn(shown(arms, draws.random(n) < truth[categories[arms]], categories))
        off[kind] = float(np.abs(preferred(policy, categories) - chances[::-1]).mean())
    assert off[Stacked] < 0.5 * off[Fm]


def told_after(rng: np.random.Generator, still_true: float, batches: int) -> int | None:
    """The mini-batches of 32 examples until a kind of weights is told to have changed; of what it says, rewards have
    `still_true`."""
    moments = np.zeros(calibration.SHAPE)
    for batch in range(1, batches + 1):
        said = np.column_stack([np.zeros(32), rng.normal(0.05, 0.1, 32), rng.normal(0, 0.05, 32)])
        lacks = (still_true - 1.0) * said[:, 1] + rng.normal(0, 0.3, 32)
        moments = calibration.moved(moments, said, lacks, np.ones(32), 0.09)
        kept = calibration.kept(moments)
        if kept is not None:
            assert kept[0] == kept[2] == 1.0
            assert kept[1] < 0.6
            return batch
    return None


def test_weights_that_say_nothing_any_more_are_told_from_some_hundred_examples_and_others_never() -> None:
    assert all(told_after(np.random.default_rng(seed), 1.0, 60) is None for seed in range(10))
    assert all(told_after(np.random.default_rng(seed), 0.0, 16) is not None for seed in range(10))


def test_moments_of_absurd_size_tell_nothing_and_raise_nothing() -> None:
    for size in (1e30, 1e-30):
        said, lacks = np.full((4, prior_width.KINDS), size), np.full(4, size)
        assert calibration.kept(calibration.moved(np.zeros(calibration.SHAPE), said, lacks, np.ones(4), 1.0)) is None


def test_what_is_not_shown_any_more_is_given_up_with_what_is_seen_to_have_changed() -> None:
    rng = np.random.default_rng(1)
    categories = rng.integers(CATEGORIES, size=ARMS)
    chances = np.linspace(0.1, 0.5, CATEGORIES)
    policy = Stacked()
    arms = rng.integers(ARMS, size=6_000)
    policy.learn(shown(arms, rng.random(len(arms)) < chances[categories[arms]], categories))
    before = preferred(policy, categories)
    arms = rng.choice(np.flatnonzero(categories == CATEGORIES - 1), 1_024)
    policy.learn(shown(arms, rng.random(len(arms)) < 0.1, categories))
    assert np.ptp(preferred(policy, categories)[:-1]) < 0.8 * np.ptp(before[:-1])


def test_a_model_that_was_saved_before_there_were_priors_of_its_own_loads_and_learns_on() -> None:
    _, categories, examples = rare_clicks(0, 1_000)
    policy = Stacked()
    policy.learn(examples)
    earlier = {name: array for name, array in policy.tensors().items() if name not in Stacked.added}
    loaded = Stacked.from_tensors(policy.params, earlier)
    np.testing.assert_array_equal(loaded.tensors()["prior"], np.full(prior_width.KINDS, policy.params.ridge))
    loaded.learn(examples)
    assert loaded.score(between(np.arange(ARMS), categories)).usable().all()
