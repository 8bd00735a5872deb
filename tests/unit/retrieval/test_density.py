"""Density sums against the kernel sum itself, their decay, merging and deltas, and what is served from them."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.errors import InvalidTensors, NotMergeable
from banditmesh.retrieval.density import DensityParams, DensitySums, Events
from banditmesh.retrieval.served import DensityTable
from banditmesh.retrieval.user_vector import Weights, pack, pooled, unpack

PARAMS = DensityParams(dimensions=16, features=512, bandwidth=0.7, half_life_s=600.0)
NOW_S = 1_700_000_000.0


def people(n: int, seed: int = 1, dimensions: int = 16) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Vectors near one of five tastes, as tokens have them."""
    rng = np.random.default_rng(seed)
    tastes = np.random.default_rng(99).standard_normal((5, dimensions))
    vectors = tastes[rng.integers(0, 5, n)] + 0.4 * rng.standard_normal((n, dimensions))
    return unpack(pack(vectors.astype(np.float32)), dimensions)


def events(n: int, contents: int, seed: int = 2, before_s: float = 0.0) -> Events:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, contents + 1)
    keys = rng.choice(contents, n, p=weights / weights.sum()).astype(np.uint64)
    return Events(keys, pack(people(n, seed)), np.sort(NOW_S - before_s - rng.uniform(0, 1200, n)))


def world(contents: int = 30, n: int = 4000) -> tuple[DensitySums, Events, Events]:
    sums, shown, clicked = DensitySums(PARAMS), events(n, contents), events(n // 8, contents, seed=3)
    sums.shown(shown)
    sums.clicked(clicked)
    return sums, shown, clicked


def brute(clicks: Events, users: np.ndarray[tuple[int, int], np.dtype[np.float32]], contents: int) -> np.ndarray:
    """``float64[n_users, contents]``: Σ decay · K, click by click."""
    kernel = PARAMS.kernel.exact(users, unpack(clicks.users, 16)) * 2.0 ** (-(NOW_S - clicks.times_s) / 600)
    return np.stack([kernel[:, clicks.contents == each].sum(axis=1) for each in range(contents)], axis=1)


def test_a_sum_is_the_kernel_sum_over_all_clicks() -> None:
    sums, _, clicked = world()
    me = people(40, seed=8)
    tensors = sums.tensors()
    decay = 2.0 ** (-(NOW_S - tensors["clock"][0]) / 600)
    found = PARAMS.kernel.phi(me) @ tensors["clicks"].T * decay
    exact = brute(clicked, me, 30)[:, tensors["contents"].astype(int)]
    strong = exact > np.quantile(exact, 0.7)
    assert np.median(np.abs(found - exact)[strong] / exact[strong]) < 0.05
    # and exactly the sum of the features themselves
    phi = PARAMS.kernel.phi(unpack(clicked.users, 16)) * 2.0 ** (-(NOW_S - clicked.times_s) / 600)[:, None]
    of_zero = phi[clicked.contents == 0].sum(axis=0)
    np.testing.assert_allclose(tensors["clicks"][0] * decay, of_zero, rtol=1e-4, atol=1e-4)


def test_it_does_not_matter_how_a_log_was_cut_or_who_read_which_part() -> None:
    whole, shown, clicked = world()
    parts = [DensitySums(PARAMS) for _ in range(3)]
    for at, part in enumerate(parts):
        for which, log in ((part.shown, shown), (part.clicked, clicked)):
            own = np.arange(at, len(log), 3)
            for piece in np.array_split(own, 4):
                which(Events(log.contents[piece], [log.users[each] for each in piece], log.times_s[piece]))
    merged = parts[1]
    merged.merge(parts[0])
    merged.merge(parts[2])
    assert merged.events == whole.events
    a, b = whole.tensors(), merged.tensors()
    assert a["contents"].tolist() == b["contents"].tolist()
    scale = 2.0 ** ((b["clock"][0] - a["clock"][0]) / 600)
    np.testing.assert_allclose(b["clicks"] * scale, a["clicks"], rtol=1e-3, atol=1e-3 * np.abs(a["clicks"]).max())
    np.testing.assert_allclose(b["show_mass"] * scale, a["show_mass"], rtol=1e-9)
    with pytest.raises(NotMergeable):
        whole.merge(DensitySums(DensityParams(16, 256, 0.5, 600.0)))


def test_sums_fade_by_half_in_a_half_life_also_over_a_moved_landmark() -> None:
    sums = DensitySums(PARAMS)
    taste = pack(people(1))
    sums.clicked(Events(np.array([1], np.uint64), taste, np.array([NOW_S])))
    sums.clicked(Events(np.array([2], np.uint64), taste, np.array([NOW_S + 3 * 600.0])))
    ratio = sums.tensors()["click_mass"]
    assert ratio[1] / ratio[0] == pytest.approx(8)
    sums.clicked(Events(np.array([3], np.uint64), taste, np.array([NOW_S + 60 * 600.0])))
    assert not sums.can_be_delta
    after = sums.tensors()["click_mass"]
    assert after[1] / after[0] == pytest.approx(8)
    assert after[2] / after[1] == pytest.approx(2.0**57)
    sums.full()
    assert len(sums) == 1  # the others have faded


def test_a_full_snapshot_and_the_last_delta_are_everything() -> None:
    sums, _, _ = world()
    full = sums.full()
    for seed in (5, 6):
        sums.clicked(events(50, 45, seed=seed))
        delta = sums.delta()
    assert 0 < len(delta["contents"]) < 45
    again = DensitySums.from_tensors(PARAMS, full)
    again.apply(delta)
    for name, array in sums.tensors().items():
        np.testing.assert_array_equal(again.tensors()[name], array)
    other, _, _ = world(n=100)
    other._landmark_s += 1
    with pytest.raises(InvalidTensors, match="another snapshot"):
        other.apply(delta)


def test_room_is_made_for_what_is_new() -> None:
    sums = DensitySums(DensityParams(16, 32, 0.5, 600.0, contents=8))
    for key in range(20):
        sums.shown(Events(np.array([key], np.uint64), pack(people(1)), np.array([NOW_S + key])))
    assert len(sums) == 8
    assert 19 in sums.tensors()["contents"]


@pytest.mark.parametrize("spoilt", ["clicks", "show_mass", "contents"])
def test_tensors_that_do_not_fit_are_refused(spoilt: str) -> None:
    tensors = world()[0].tensors()
    bad = tensors[spoilt]
    tensors[spoilt] = bad[..., :5] if spoilt == "clicks" else -bad if spoilt == "show_mass" else bad * np.uint64(0)
    with pytest.raises(InvalidTensors, match=spoilt):
        DensityTable.of(PARAMS, tensors, 32)


def exact_rates(table: DensityTable, phi: np.ndarray, alive: np.ndarray) -> np.ndarray:
    rows = np.arange(len(table))
    rate = table.rates(alive, NOW_S, 5.0).exact(phi, rows)[0]
    return np.where(alive, rate, -1)


def test_the_best_contents_are_those_of_an_exact_search_and_only_live_ones() -> None:
    sums = DensitySums(PARAMS)
    sums.shown(events(9_000, 3000))
    sums.clicked(events(2000, 3000, seed=3))
    table = DensityTable.of(PARAMS, sums.full(), 64)
    alive = np.ones(len(table), np.bool_)
    alive[::7] = False
    me = people(6, seed=11)
    found = table.rates(alive, NOW_S, 5.0).nearest(me, 50)
    for phi, nearest in zip(PARAMS.kernel.phi(me), found, strict=True):
        assert alive[nearest.rows].all()
        exact = exact_rates(table, phi, alive)
        best = np.argsort(-exact)[:50]
        assert len({*nearest.rows.tolist()} & {*best.tolist()}) >= 48
        np.testing.assert_allclose(nearest.rate, exact[nearest.rows], rtol=1e-5)
        assert (np.diff(nearest.rate) <= 1e-6).all()


def test_a_delta_changes_its_rows_and_the_next_one_takes_its_place() -> None:
    sums, _, _ = world()
    table = DensityTable.of(PARAMS, sums.full(), 64)
    sums.clicked(events(40, 45, seed=5))
    first = table.with_delta(sums.delta())
    sums.clicked(events(40, 45, seed=6))
    second = first.with_delta(sums.delta())
    assert [len(each) for each in (table, first, second)] == sorted(len(each) for each in (table, first, second))
    now = sums.tensors()
    order = np.argsort(second.keys)
    assert second.keys[order].tolist() == now["contents"].tolist()
    np.testing.assert_array_equal(second.sums("clicks", order), now["clicks"])
    np.testing.assert_allclose(second.clicks[order], now["click_mass"])
    back = second.with_delta({name: array[:0] for name, array in sums.delta().items()} | _clock(sums))
    for at, name in enumerate(("clicks", "shows")):
        np.testing.assert_allclose(second.coarse[at][order], now[name] @ table.directions[at], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(back.coarse[at], table.coarse[at], rtol=1e-4, atol=1e-4)


def _clock(sums: DensitySums) -> dict[str, np.ndarray]:
    return {name: sums.delta()[name] for name in ("clock", "events")}


def test_a_click_of_a_neighbour_raises_a_content_and_a_strangers_does_not() -> None:
    tastes = unpack(pack(np.eye(16, dtype=np.float32)[:2]), 16)
    sums = DensitySums(PARAMS)
    for key in range(4):
        for taste in pack(tastes):
            for _ in range(30):
                sums.shown(Events(np.array([key], np.uint64), [taste], np.array([NOW_S])))
    table = DensityTable.of(PARAMS, sums.full(), 64)
    sums.clicked(Events(np.full(6, 2, np.uint64), pack(np.repeat(tastes[:1], 6, axis=0)), np.full(6, NOW_S)))
    rates = table.with_delta(sums.delta()).rates(np.ones(4, np.bool_), NOW_S, 5.0)
    near, far, nobody = rates.nearest(np.concatenate([tastes, np.zeros((1, 16), np.float32)]), 4)
    assert near.rows[0] == 2
    assert float(near.rate[0]) > 2 * float(far.rate[far.rows == 2][0])
    assert float(nobody.rate[nobody.rows == 2][0]) == pytest.approx((6 + 5 * 6 / 240) / (60 + 5), rel=1e-4)


def test_a_new_content_has_the_rate_of_all_and_a_larger_deviation() -> None:
    sums, _, _ = world()
    sums.shown(Events(np.array([777], np.uint64), [b""], np.array([NOW_S])))
    table = DensityTable.of(PARAMS, sums.full(), 64)
    me = PARAMS.kernel.phi(people(1))[0]
    rate, deviation = table.rates(np.ones(len(table), np.bool_), NOW_S, 5.0).exact(me, np.arange(len(table)))
    new = int(np.flatnonzero(table.keys == 777)[0])
    assert 0 < rate[new] < 1
    assert deviation[new] > np.median(deviation)


def test_the_user_vector_weighs_clicks_and_survives_its_bytes() -> None:
    weights = Weights(recency_s=100.0, target=2.0, dwell=0.5, inverse_popularity=0.5)
    found = weights.of(
        np.array([0.0, 100, 0, 0, 0]),
        np.array([0, 0, 1, 0, 0], np.bool_),
        np.array([0.0, 0, 0, 30, 0]),
        np.array([0.0, 0, 0, 0, 3]),
    )
    assert found.tolist() == [1, 0.5, 3, 1.5, 0.5]
    axes = np.eye(4, dtype=np.float32)
    users = pooled(axes, np.array([1.0, 1.0, 3.0, 1.0]), np.array([0, 2, 2, 4]))
    assert users[0].tolist() == pytest.approx([2**-0.5, 2**-0.5, 0, 0], abs=1e-3)
    assert not users[1].any()
    assert users[2][2] / users[2][3] == pytest.approx(3, rel=0.02)
    assert unpack(pack(users), 4) == pytest.approx(users, abs=1e-6)
    assert unpack([b"", b"123"], 4).any() == np.False_


def test_wide_vectors_become_as_wide_as_a_token_allows_and_keep_their_distances() -> None:
    vectors = np.random.default_rng(1).standard_normal((40, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    users = pooled(vectors, np.ones(40), np.arange(41))
    assert users.shape == (40, 64)
    assert np.abs(users @ users.T - vectors @ vectors.T).max() < 0.55
