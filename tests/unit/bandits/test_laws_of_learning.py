"""The laws of how a policy learns and is saved; those of its scores are in `test_laws_of_scores`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.bandits.registry import POLICIES

from . import laws
from .batches import candidate_counts, generators
from .cases import VARIANTS, every_policy, n_examples, seeds, shapes


def test_the_variants_are_of_policies_that_exist() -> None:
    assert VARIANTS.keys() <= POLICIES.keys()


@every_policy
@seeds
@given(rng=generators())
def test_learning_moves_the_better_arm_up(make: laws.Make, rng: np.random.Generator) -> None:
    laws.learning_moves_the_better_arm_up(make, rng)


@every_policy
@shapes
@given(rng=generators(), counts=candidate_counts(), n=n_examples)
def test_tensors_round_trip(make: laws.Make, rng: np.random.Generator, counts: list[int], n: int) -> None:
    laws.tensors_round_trip(make, rng, counts, n)


@every_policy
@shapes
@given(rng=generators(), n=st.sampled_from([0, 1, 70]))  # of 70, some wait for their mini-batch to fill
def test_replay_gives_the_same_bytes(make: laws.Make, rng: np.random.Generator, n: int) -> None:
    laws.replay_gives_the_same_bytes_however_it_is_cut(make, rng, n)


@every_policy
@shapes
@given(rng=generators(), n=n_examples)
def test_merge_is_the_union(make: laws.Make, rng: np.random.Generator, n: int) -> None:
    laws.merge_is_the_union_of_examples(make, rng, n)


@every_policy
@seeds
@given(rng=generators())
def test_a_second_epoch_does_not_count_twice(make: laws.Make, rng: np.random.Generator) -> None:
    laws.a_second_epoch_does_not_count_evidence_twice(make, rng)


@every_policy
@seeds
@given(rng=generators())
def test_a_broken_number_is_refused(make: laws.Make, rng: np.random.Generator) -> None:
    laws.a_broken_number_is_refused_and_changes_nothing(make, rng)


@every_policy
@seeds
@given(rng=generators())
def test_a_broken_feature_is_refused(make: laws.Make, rng: np.random.Generator) -> None:
    laws.a_broken_feature_is_refused_or_not_looked_at(make, rng)


@every_policy
@pytest.mark.parametrize("size", [1e30, -3e38])
def test_rewards_of_absurd_size_leave_a_state_that_can_be_saved(make: laws.Make, size: float) -> None:
    laws.rewards_of_absurd_size_leave_a_state_that_can_be_saved(make, np.random.default_rng(3), size)


@every_policy
def test_tensors_that_do_not_fit_are_refused(make: laws.Make) -> None:
    laws.tensors_that_do_not_fit_are_refused_by_name(make, np.random.default_rng(2))
