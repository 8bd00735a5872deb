"""A mismatch is found soon, and its absence is not mistaken for one however often one looks."""

from __future__ import annotations

import numpy as np

from banditmesh.experiments.people import People
from banditmesh.experiments.sample_ratio import ALPHA, sample_ratio


def test_users_as_promised_are_no_mismatch_at_any_look() -> None:
    rng = np.random.default_rng(1)
    came = rng.multinomial(50, [0.1, 0.9], (400, 100)).cumsum(axis=1)
    alarms = [any(sample_ratio(at, (0.1, 0.9)).p < 0.05 for at in experiment.tolist()) for experiment in came]
    assert np.mean(alarms) <= 0.05


def test_a_tenth_of_a_variant_that_never_arrives_is_found() -> None:
    rng = np.random.default_rng(2)
    counts = rng.multinomial(40_000, [0.45 / 0.95, 0.5 / 0.95])
    assert sample_ratio(counts.tolist(), (0.5, 0.5)).mismatch


def test_the_evidence_by_hand() -> None:
    # Beta(50, 50) against 1/2: after one user of the first variant the Bayes factor is (1/2) / (1/2) = 1
    assert sample_ratio((1, 0), (0.5, 0.5)).p == 1.0
    # after two of it: (50/100 · 51/101) / (1/4) = 1.0198; the test of the whole sample has half of alpha
    assert sample_ratio((2, 0), (0.5, 0.5)).p == 1.0
    assert sample_ratio((1000, 0), (0.5, 0.5)).p < ALPHA


def test_a_variant_without_a_share_and_one_alone_say_nothing() -> None:
    assert sample_ratio((100, 3), (1.0, 0.0)).p == 1.0
    assert sample_ratio((0, 0), (0.5, 0.5)).p == 1.0


def test_people_are_counted_once_and_exactly_as_long_as_they_are_few() -> None:
    people = People()
    users = np.arange(1000, dtype=np.uint64)
    for _ in range(3):
        people.add(users, (users % 4 == 0).astype(np.int64))
    assert people.users(2).tolist() == [750, 250]


def test_many_people_are_estimated_in_bounded_memory_and_their_shares_stay_right() -> None:
    people = People(capacity=4096)
    users = np.arange(300_000, dtype=np.uint64)
    for start in range(0, len(users), 1000):
        part = users[start : start + 1000]
        people.add(part, (part % 4 == 0).astype(np.int64))
    assert len(people.hashes) <= 4096
    assert abs(people.users(2).sum() / 300_000 - 1) < 0.1
    assert sample_ratio(people.counted(2).tolist(), (0.75, 0.25), halvings=people.halvings).p > ALPHA


def test_who_is_seen_in_another_variant_later_counts_where_seen_first() -> None:
    people = People()
    people.add(np.array([7, 7, 8], np.uint64), np.array([1, 0, 0]))
    people.add(np.array([7, 8], np.uint64), np.array([0, 1]))
    assert people.counted(2).tolist() == [1, 1]
