"""The laws of what a policy says of candidates; those of how it learns are in `test_laws_of_learning`."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from . import laws
from .batches import candidate_counts, generators
from .cases import every_policy, n_examples, seeds, shapes


@every_policy
@shapes
@given(rng=generators(), counts=candidate_counts(), n=n_examples)
def test_scores_are_finite(make: laws.Make, rng: np.random.Generator, counts: list[int], n: int) -> None:
    laws.scores_are_finite_float32_of_the_right_length(make, rng, counts, n)


@every_policy
@shapes
@given(rng=generators(), n=st.sampled_from([1, 2, 30, 200]))
def test_scoring_is_permutation_equivariant(make: laws.Make, rng: np.random.Generator, n: int) -> None:
    laws.scoring_is_permutation_equivariant(make, rng, n)


@every_policy
@shapes
@given(rng=generators(), counts=candidate_counts())
def test_a_decision_scores_the_same_alone(make: laws.Make, rng: np.random.Generator, counts: list[int]) -> None:
    laws.a_decision_scores_the_same_alone_and_in_a_batch(make, rng, counts)


@every_policy
@seeds
@given(rng=generators())
def test_unseen_arms_score_as_the_prior(make: laws.Make, rng: np.random.Generator) -> None:
    laws.unseen_arms_score_as_the_prior_or_the_shared_part(make, rng)


@every_policy
@seeds
@given(rng=generators())
def test_a_feature_given_twice_counts_twice(make: laws.Make, rng: np.random.Generator) -> None:
    laws.a_feature_given_twice_counts_twice(make, rng)


@every_policy
@seeds
@given(rng=generators())
def test_features_of_absurd_size_leave_the_rest_alone(make: laws.Make, rng: np.random.Generator) -> None:
    laws.features_of_absurd_size_leave_the_rest_alone(make, rng)


@every_policy
def test_ten_thousand_candidates_of_one_decision(make: laws.Make) -> None:
    laws.scores_are_finite_float32_of_the_right_length(make, np.random.default_rng(1), [10_000], 100)
