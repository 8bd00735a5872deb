"""Golden values: keys and ids stand in models, Redis and logs, so they must never change."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.bandits import hashing


def test_keys_are_what_they_always_were() -> None:
    assert hashing.key64("") == 13020603013274838756
    assert hashing.key64("weather") == hashing.service_key("weather") == 15577049981620465086
    assert hashing.key64("weather/today") == hashing.logic_key("weather", "today") == 11197821078686748832
    assert hashing.key64("天気/今日") == 8928145372387359599
    assert hashing.content_key("comics", "c1") == 14613401466308576333


def test_feature_ids_are_what_they_always_were() -> None:
    assert hashing.categorical_id("age_band", "20s") == 2178652941 - 2**31 == hashing.key64("age_band=20s") % 2**31
    assert hashing.numeric_id("x0") == 158721726 == hashing.key64("x0") % 2**31


def test_crosses_are_what_they_always_were_and_ordered() -> None:
    left = np.array([0, 1, 7, 2**32 - 1], np.uint32)
    right = np.array([0, 7, 1, 2**32 - 1], np.uint32)
    crossed = hashing.cross(left, right)
    assert crossed.dtype == np.uint32
    assert crossed.tolist() == [3793791033, 667883271 + 2**31, 440314428 + 2**31, 3839455607]


def test_mixes_are_what_they_always_were() -> None:
    assert hashing.mix64(np.array([0, 1, 2**64 - 1], np.uint64)).tolist() == [
        0,
        6238072747940578789,
        13029008266876403067,
    ]
    assert hashing.mix32(np.array([0, 1, 2**32 - 1], np.uint32)).tolist() == [0, 1364076727, 2180083513]


def test_uniform_is_what_it_always_was_and_never_reaches_one() -> None:
    keys = np.array([0, 2**63, 2**64 - 1, hashing.key64("spring/u1")], np.uint64)
    assert hashing.uniform(keys).tolist() == [0.0, 0.5, 1 - 2**-53, 0.4184982142790601]


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 31))
def test_one_bit_of_either_id_changes_the_cross(left: int, right: int, bit: int) -> None:
    a, b = np.array([left], np.uint32), np.array([right], np.uint32)
    flip = np.uint32(1 << bit)
    assert hashing.cross(a, b) != hashing.cross(a ^ flip, b)
    assert hashing.cross(a, b) != hashing.cross(a, b ^ flip)


def test_crosses_of_a_grid_collide_as_rarely_as_random_numbers() -> None:
    ids = np.arange(300, dtype=np.uint32)
    crossed = hashing.cross(ids[:, None], ids[None, :]).ravel()
    # 90 000 draws out of 2^31 collide 1.9 times on average.
    assert len(crossed) - len(np.unique(crossed)) <= 8
    counts = np.bincount((crossed ^ hashing.CROSSED) >> np.uint32(25), minlength=64)
    assert abs(counts - 90_000 / 64).max() < 5 * (90_000 / 64) ** 0.5


def test_users_spread_evenly_over_the_buckets_of_an_experiment() -> None:
    keys = np.array([hashing.key64(f"spring/u{i}") for i in range(20_000)], np.uint64)
    counts = np.histogram(hashing.uniform(keys), bins=10, range=(0, 1))[0]
    assert abs(counts - 2000).max() < 5 * 2000**0.5
