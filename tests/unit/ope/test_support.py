from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.hashing import content_key
from banditmesh.ope.interval import Interval
from banditmesh.ope.rows import Rows
from banditmesh.ope.support import Support
from banditmesh.ope.unseen import Unseen
from banditmesh.ope.warnings import warnings
from banditmesh.ope.worst import Worst

from .worlds import world


def of(rows: Rows) -> Support:
    support = Support()
    support.add(rows)
    return support


def one_arm(n: int) -> Rows:
    """A log that showed one arm of ten with certainty; the evaluated policy is uniform."""
    rewards = (np.arange(n) % 2).astype(float)
    return Rows.checked(range(n), rewards, np.ones(n), np.full(n, 0.1))


def test_weights_are_summed_up_by_hand() -> None:
    support = of(Rows.checked([7, 8, 9], [1.0, 0.0, 1.0], [0.5, 0.25, 0.1], [0.5, 0.5, 0.4]))  # weights 1, 2, 4
    assert support.mean_weight == pytest.approx(7 / 3)
    assert support.effective == pytest.approx(49 / 21)
    assert (support.largest, support.largest_key) == (pytest.approx(4), 9)


def test_a_log_of_one_arm_leaves_open_what_the_other_nine_earn() -> None:
    support = of(one_arm(2000))
    assert support.shifted
    lower, upper = support.bounds()
    assert 0.04 < lower < 0.05
    assert 0.95 < upper < 0.96


def test_propensities_that_contradict_themselves_leave_everything_open() -> None:
    rows = world(np.random.default_rng(0), 2000).rows
    wrong = Rows.checked(rows.keys, rows.rewards, rows.propensities / 3, rows.targets)
    assert of(wrong).shifted
    assert of(wrong).mean_weight == pytest.approx(3, abs=0.2)
    assert of(wrong).bounds() == (0, 1)


def test_right_propensities_are_hardly_ever_called_wrong() -> None:
    assert sum(of(world(np.random.default_rng(seed), 500).rows).shifted for seed in range(200)) <= 2


def test_parts_add_up() -> None:
    rows = world(np.random.default_rng(1), 500).rows
    whole, left = of(rows), of(rows.part(rows.keys % 3 == 0))
    left.merge(of(rows.part(rows.keys % 3 != 0)))
    assert left.bounds() == pytest.approx(whole.bounds())
    assert (left.largest, left.largest_key, left.seen) == (whole.largest, whole.largest_key, whole.seen)


@pytest.mark.parametrize(
    ("rewards", "seen", "limits"),
    [
        ([0.0, 0.0], (0, 1), (0, 1)),
        ([1.0, 0.5], (0.5, 1), (0, 1)),
        ([5.0, 5.0], (0, 5), (-np.inf, np.inf)),
        ([-2.0, 3.0], (-2, 3), (-np.inf, np.inf)),
    ],
)
def test_the_range_of_rewards_is_what_the_log_shows(
    rewards: list[float], seen: Interval, limits: tuple[float, float]
) -> None:
    support = of(Rows.checked([1, 2], rewards, [0.5, 0.5], [0.5, 0.5]))
    assert (support.rewards, support.limits) == (seen, limits)


def test_a_stated_range_of_rewards_counts_instead() -> None:
    narrow, wide = of(one_arm(2000)).bounds(), of(one_arm(2000)).bounds(rewards=Interval(0.0, 2.0))
    assert wide.lower == pytest.approx(narrow.lower, abs=1e-9)
    assert wide.upper == pytest.approx(narrow.upper + 0.9, abs=0.01)


def test_the_worst_row_is_the_largest_weight_with_the_best_reward() -> None:
    worst = Worst()
    worst.add(np.array([0.5, 0.1, -3.0]), np.array([1.0, 8.0, 2.0]), np.ones(3))
    assert worst.high(np.array([1.0, 0.0]), 1.0) == pytest.approx((8.1, 1.0))
    assert worst.low(np.array([1.0, 0.0]), 0.0) == pytest.approx((-3.0, 1.0))
    assert worst.low(np.array([1.0, 0.0]), -1.0) == pytest.approx((-7.9, 1.0))


CONTENTS = np.array([content_key("", name) for name in "abcde"], np.uint64)


def seen(n: int, shown: int, probabilities: list[float]) -> Unseen:
    """n decisions between five contents, which all showed the same one."""
    unseen = Unseen()
    for _ in range(n):
        unseen.add(CONTENTS, np.array(probabilities), np.array([shown]))
    return unseen


def test_contents_that_were_never_shown_are_the_share_that_the_policy_gives_them() -> None:
    unseen = seen(100, 0, [0.4, 0.3, 0.2, 0.1, 0.0])
    assert unseen.share == pytest.approx(0.6)
    unseen.merge(seen(100, 1, [0.4, 0.3, 0.2, 0.1, 0.0]))
    assert unseen.share == pytest.approx(0.3)


def test_a_content_that_the_policy_hardly_wants_may_well_be_unseen() -> None:
    assert seen(100, 0, [0.96, 0.01, 0.01, 0.01, 0.01]).share == 0
    assert Unseen().share == 0


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (one_arm(2000), "mean weight is 0.1 and not 1: 90% of the policy's decisions have no support"),
        (one_arm(0), "no rows"),
        (Rows.checked(range(1000), [1.0] * 1000, [0.1] * 1000, [0.4] * 1000), "no estimate is to be trusted"),
        (Rows.checked(range(200), [1.0] * 200, [0.5] * 199 + [1e-300], [0.5] * 200), "line 199 has a propensity"),
        (Rows.checked(range(200), [1.0] * 200, [0.5] * 199 + [0.005], [0.5] * 200), "line 199 alone has 33%"),
        (Rows.checked(range(200), [1.0] * 200, [0.5] * 199 + [0.005], [0.5] * 200), "effective sample size is 8"),
        (Rows.checked(range(50), [1.0] * 50, [0.5] * 50, [0.5] * 50), "50 rows only"),
    ],
)
def test_what_is_wrong_is_said_in_words(rows: Rows, says: str) -> None:
    support = of(rows) if len(rows) else Support()
    assert any(says in each for each in warnings(support, Unseen(), "line")), warnings(support, Unseen(), "line")


def test_never_shown_contents_are_said_in_words() -> None:
    (said,) = warnings(of(world(np.random.default_rng(0), 2000).rows), seen(100, 0, [0.4, 0.6, 0.0, 0.0, 0.0]))
    assert said.startswith("60% of what the policy would show")


def test_a_log_that_supports_the_policy_gives_no_warning() -> None:
    assert warnings(of(world(np.random.default_rng(0), 2000).rows), seen(100, 0, [1.0, 0.0, 0.0, 0.0, 0.0])) == []


def test_few_rows_that_all_say_something_are_not_called_silent() -> None:
    assert warnings(of(Rows.checked([1, 2], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5])), Unseen()) == ["there are 2 rows only"]
