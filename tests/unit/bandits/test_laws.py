"""Every registered policy obeys the laws, with its defaults and with the variants below."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banditmesh.bandits.registry import POLICIES, build

from . import laws
from .batches import candidate_counts, generators

VARIANTS: dict[str, list[dict[str, object]]] = {
    "beta_bernoulli": [{"arm": "logic", "prior_failures": 20.0}, {"half_life": "20s"}],
    "blend": [{"popular": {"by": ["country", "hour", "weekday"], "half_life": "1d"}, "k": 2.0}],
    "fm": [{"arm": "logic", "link": "logit", "batch": 8, "factors": 3}, {"half_life": "20s"}],
    "linear": [{"arm": "logic", "link": "logit", "batch": 8}, {"half_life": "20s", "bits": 8}],
    "linucb": [{"arm": "logic", "dimension": 4}, {"half_life": "20s", "prior_reward": 0.0}],
    "linucb_hybrid": [{"arm": "logic", "dimension": 4, "shared_dimension": 6}, {"half_life": "20s"}],
    "nfm": [{"arm": "logic", "link": "logit", "hidden": [8, 4], "dropout": 0.3, "learning_rate": 0.2}],
    "popularity": [{"half_life": None}, {"half_life": "20s"}],
    "stacked": [{"arm": "logic", "link": "logit", "dimension": 4, "max_arms": 3, "bits": 8}, {"half_life": "20s"}],
}

CASES = [(name, params) for name in POLICIES for params in [{}, *VARIANTS.get(name, [])]]

every_policy = pytest.mark.parametrize("make", [partial(build, *case) for case in CASES], ids=[str(c) for c in CASES])
some = settings(max_examples=15, deadline=None)
n_examples = st.sampled_from([0, 1, 5, 60])


def test_the_variants_are_of_policies_that_exist() -> None:
    assert VARIANTS.keys() <= POLICIES.keys()


@every_policy
@some
@given(rng=generators(), counts=candidate_counts(), n=n_examples)
def test_scores_are_finite(make: laws.Make, rng: np.random.Generator, counts: list[int], n: int) -> None:
    laws.scores_are_finite_float32_of_the_right_length(make, rng, counts, n)


@every_policy
@some
@given(rng=generators(), n=st.sampled_from([1, 2, 30, 200]))
def test_scoring_is_permutation_equivariant(make: laws.Make, rng: np.random.Generator, n: int) -> None:
    laws.scoring_is_permutation_equivariant(make, rng, n)


@every_policy
@some
@given(rng=generators(), counts=candidate_counts())
def test_a_decision_scores_the_same_alone(make: laws.Make, rng: np.random.Generator, counts: list[int]) -> None:
    laws.a_decision_scores_the_same_alone_and_in_a_batch(make, rng, counts)


@every_policy
@some
@given(rng=generators())
def test_learning_moves_the_better_arm_up(make: laws.Make, rng: np.random.Generator) -> None:
    laws.learning_moves_the_better_arm_up(make, rng)


@every_policy
@some
@given(rng=generators(), counts=candidate_counts(), n=n_examples)
def test_tensors_round_trip(make: laws.Make, rng: np.random.Generator, counts: list[int], n: int) -> None:
    laws.tensors_round_trip(make, rng, counts, n)


@every_policy
@some
@given(rng=generators(), n=n_examples)
def test_replay_gives_the_same_bytes(make: laws.Make, rng: np.random.Generator, n: int) -> None:
    laws.replay_gives_the_same_bytes_however_it_is_cut(make, rng, n)


@every_policy
@some
@given(rng=generators(), n=n_examples)
def test_merge_is_the_union(make: laws.Make, rng: np.random.Generator, n: int) -> None:
    laws.merge_is_the_union_of_examples(make, rng, n)


@every_policy
@some
@given(rng=generators())
def test_unseen_arms_score_as_the_prior(make: laws.Make, rng: np.random.Generator) -> None:
    laws.unseen_arms_score_as_the_prior_or_the_shared_part(make, rng)


@every_policy
@some
@given(rng=generators())
def test_a_second_epoch_does_not_count_twice(make: laws.Make, rng: np.random.Generator) -> None:
    laws.a_second_epoch_does_not_count_evidence_twice(make, rng)


@every_policy
@some
@given(rng=generators())
def test_a_feature_given_twice_counts_twice(make: laws.Make, rng: np.random.Generator) -> None:
    laws.a_feature_given_twice_counts_twice(make, rng)


@every_policy
@some
@given(rng=generators())
def test_a_broken_number_is_refused(make: laws.Make, rng: np.random.Generator) -> None:
    laws.a_broken_number_is_refused_and_changes_nothing(make, rng)


@every_policy
@some
@given(rng=generators())
def test_a_broken_feature_is_refused(make: laws.Make, rng: np.random.Generator) -> None:
    laws.a_broken_feature_is_refused_or_not_looked_at(make, rng)


@every_policy
@some
@given(rng=generators())
def test_features_of_absurd_size_leave_the_rest_alone(make: laws.Make, rng: np.random.Generator) -> None:
    laws.features_of_absurd_size_leave_the_rest_alone(make, rng)


@every_policy
@some
@given(rng=generators())
def test_tensors_that_do_not_fit_are_refused(make: laws.Make, rng: np.random.Generator) -> None:
    laws.tensors_that_do_not_fit_are_refused_by_name(make, rng)


@every_policy
def test_ten_thousand_candidates_of_one_decision(make: laws.Make) -> None:
    laws.scores_are_finite_float32_of_the_right_length(make, np.random.default_rng(1), [10_000], 100)
