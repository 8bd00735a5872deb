from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.arms import RETIRE_EVERY
from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.hashing import content_key
from banditmesh.bandits.popularity import Popularity, PopularityParams

Shown = tuple[str, float, float]


def shown(*rows: Shown, named: bool = True) -> Examples:
    """Each row: content id, reward, time in seconds; all of the service "news"."""
    n = len(rows)
    keys = np.array([content_key("news", content) for content, _, _ in rows], np.uint64)
    rewards = np.array([reward for _, reward, _ in rows])
    times = np.array([time for _, _, time in rows])
    names = [("news", content) for content, _, _ in rows] if named else None
    return Examples.checked(keys, keys, keys, SparseRows.empty(n), rewards, np.ones(n), times, rewards == 1.0, names)


def mean_and_deviation(policy: Popularity, content: str) -> tuple[float, float]:
    key = np.array([content_key("news", content)], np.uint64)
    scores = policy.score(Candidates.checked([0, 1], key, key, key, SparseRows.empty(1), SparseRows.empty(1)))
    return float(scores.mean[0]), float(scores.deviation[0])


def test_the_mean_is_shrunk_to_the_prior_by_its_weight() -> None:
    policy = Popularity(PopularityParams(half_life=None, prior_reward=0.5, prior_weight=2.0, noise=1.0))
    policy.learn(shown(("a", 1.0, 0.0), ("a", 1.0, 1.0)))
    assert mean_and_deviation(policy, "a") == pytest.approx((3 / 4, 0.5))
    assert mean_and_deviation(policy, "never shown") == pytest.approx((0.5, 0.5**0.5))


def test_the_prior_is_what_contents_earn_on_average() -> None:
    policy = Popularity(PopularityParams(half_life="100s"))
    assert mean_and_deviation(policy, "never shown") == pytest.approx((0.5, 0.5 * 10**-0.5))
    policy.learn(shown(*((f"c{i % 7}", float(i % 50 == 0), float(i)) for i in range(1000))))
    mean, deviation = mean_and_deviation(policy, "never shown")
    assert mean == pytest.approx(0.02, abs=0.01)
    assert deviation == pytest.approx((0.02 / 10) ** 0.5, rel=0.3)


def test_rewards_are_forgotten_by_half_in_a_half_life() -> None:
    policy = Popularity(PopularityParams(half_life="10s", prior_reward=0.0, prior_weight=1.0))
    policy.learn(shown(("a", 1.0, 0.0), ("b", 1.0, 10.0), ("b", 0.0, 5.0)))
    assert mean_and_deviation(policy, "a")[0] == pytest.approx(0.5 / 1.5)
    assert mean_and_deviation(policy, "b")[0] == pytest.approx(1 / (2 + 0.5**0.5))


def test_the_top_list_survives_the_snapshot_with_names() -> None:
    policy = Popularity()
    policy.learn(shown(("a", 0.0, 0.0), ("今日", 1.0, 1.0), ("c", 0.5, 2.0)))
    loaded = Popularity.from_tensors(policy.params, policy.tensors())
    assert [popular.name for popular in loaded.top(2)] == [("news", "今日"), ("news", "c")]
    assert loaded.top(2) == policy.top(2)
    assert loaded.top(2)[0].key == content_key("news", "今日")


def test_a_content_without_a_name_is_listed_by_its_key() -> None:
    policy = Popularity()
    policy.learn(shown(("a", 1.0, 0.0), named=False))
    loaded = Popularity.from_tensors(policy.params, policy.tensors())
    assert loaded.top(5)[0][:2] == (content_key("news", "a"), None)


def test_a_retired_content_takes_its_name_along() -> None:
    policy = Popularity(PopularityParams(max_arms=1))
    policy.learn(shown(*[("old", 1.0, 0.0)] * (RETIRE_EVERY - 1), ("new", 0.0, 9.0)))
    assert [popular.name for popular in policy.top(5)] == [("news", "new")]
    policy.learn(shown(("old", 1.0, 10.0), named=False))
    assert [popular.name for popular in policy.top(5)] == [None, ("news", "new")]


def test_merged_policies_know_the_names_of_both() -> None:
    left, right = Popularity(), Popularity()
    left.learn(shown(("a", 1.0, 0.0)))
    right.learn(shown(("b", 0.0, 0.0)))
    left.merge(right)
    assert [popular.name for popular in left.top(5)] == [("news", "a"), ("news", "b")]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name_offsets", {"name_offsets": np.array([0, 4, 3], np.int64)}),
        ("name_offsets", {"name_offsets": np.array([0, 4, 99], np.int64)}),
        ("names", {"names": np.full(5, 0xFF, np.uint8)}),
    ],
)
def test_broken_names_are_refused(field: str, change: dict[str, np.ndarray]) -> None:
    policy = Popularity()
    policy.learn(shown(("a", 1.0, 0.0)))
    with pytest.raises(InvalidTensors) as refused:
        Popularity.from_tensors(policy.params, {**policy.tensors(), **change})
    assert refused.value.field == field
