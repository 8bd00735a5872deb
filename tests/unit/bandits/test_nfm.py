"""The neural factorization machine: its gradients by finite differences, its last layer by direct solution."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.layers import Adam, gram, kept, moved, normalise, product
from banditmesh.bandits.nfm import Nfm, NfmParams, backward, forward, initial_layers, pool, with_one

from .laws import same_bytes
from .test_hashed import ask, of_one_arm

PARAMS = NfmParams(factors=4, hidden=(5, 3), dropout=0.3, seed=1)


RUNNING = np.stack([np.full(4, 0.3), np.full(4, 0.5)])


def network(
    rng: np.random.Generator, rows: int
) -> tuple[dict[str, np.ndarray], np.ndarray, list[np.ndarray], np.ndarray]:
    """Weights away from their start, a pooled batch of so many rows, masks of dropout, targets."""
    weights = {name: weight + rng.normal(0, 0.3, weight.shape) for name, weight in initial_layers(PARAMS).items()}
    masks = [kept(rng, (rows, width), 0.3) for width in (4, 5, 3)]
    return weights, rng.normal(size=(rows, 4)), masks, rng.normal(size=rows)


def loss(weights: dict[str, np.ndarray], pooled: np.ndarray, masks: list[np.ndarray], targets: np.ndarray) -> float:
    return float(((forward(weights, pooled, masks, RUNNING).output - targets) ** 2).sum() / 2)


@pytest.mark.parametrize("rows", [6, 40])
def test_the_gradients_are_those_of_finite_differences(rows: int) -> None:
    weights, pooled, masks, targets = network(np.random.default_rng(0), rows)
    trace = forward(weights, pooled, masks, RUNNING)
    gradients, pooled_gradient = backward(weights, trace, trace.output - targets)
    assert gradients.keys() == weights.keys()
    for array, gradient in [*((weights[name], gradients[name]) for name in weights), (pooled, pooled_gradient)]:
        assert array.shape == gradient.shape
        for at in np.ndindex(array.shape):
            kept_value = array[at]
            array[at] = kept_value + 1e-6
            above = loss(weights, pooled, masks, targets)
            array[at] = kept_value - 1e-6
            below = loss(weights, pooled, masks, targets)
            array[at] = kept_value
            assert gradient[at] == pytest.approx((above - below) / 2e-6, abs=1e-5)


def test_pooling_is_the_sum_of_the_products_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    scaled = rng.normal(size=(5, 3))
    pairs = [scaled[i] * scaled[j] for i in range(3) for j in range(i + 1, 3)]
    offsets = np.array([0, 3, 5])
    sums = np.stack([scaled[:3].sum(axis=0), scaled[3:].sum(axis=0)])
    np.testing.assert_allclose(pool(scaled, sums, offsets), [sum(pairs), scaled[3] * scaled[4]])


def test_a_normalised_batch_has_mean_0_and_variance_1() -> None:
    values = normalise(np.random.default_rng(2).normal(3, 5, (50, 2)), RUNNING[:, :2], 50).values
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(values.var(axis=0), 1, rtol=1e-5)


def test_of_a_small_batch_the_running_statistics_are_taken_and_they_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(2).normal(3, 5, (50, 2))
    running, seen = np.ones((2, 2)), 0
    for size in (1, 1, 2, 6, 40):
        running = moved(running, rows[seen : seen + size], size / (seen + size))
        seen += size
    np.testing.assert_allclose(running, [rows.mean(axis=0), rows.var(axis=0)])
    alone = normalise(rows[:1], running, 2).values
    np.testing.assert_allclose(alone, (rows[:1] - rows.mean(axis=0)) / rows.std(axis=0), rtol=1e-5)


def test_the_network_learns_from_the_first_examples_which_come_one_by_one() -> None:
    policy = Nfm(NfmParams(arm="none"))
    features = SparseRows.from_lists([[(1 + row % 2, 1.0), (3 + row % 3, 1.0)] for row in range(60)])
    before = {name: layer.copy() for name, layer in policy._layers.items()}
    policy.learn(of_one_arm(features, np.array([float(row % 2 == 0) for row in range(60)])))
    assert policy.unchanged_for == 1  # mini-batches are still of one
    assert all((policy._layers[name] != before[name]).any() for name in before)
    assert (policy._running[1] > 0).all()


def test_dropout_keeps_the_mean() -> None:
    mask = kept(np.random.default_rng(3), (1000, 20), 0.3)
    assert mask.mean() == pytest.approx(1.0, abs=0.02)
    assert set(np.unique(mask).tolist()) == {0.0, 1 / 0.7}
    assert (kept(np.random.default_rng(3), (2, 2), 0.0) == 1).all()


def test_the_first_step_of_adam_has_the_length_of_its_rate() -> None:
    value, moments = np.array([1.0, 1.0]), np.zeros((2, 2))
    Adam(0.1).step(value, np.array([5.0, -0.01]), moments, 1)
    np.testing.assert_allclose(value, [0.9, 1.1], atol=1e-6)


def interacting(n: int) -> tuple[SparseRows, np.ndarray]:
    """Rewards that depend on pairs of features alone."""
    i = np.random.default_rng(4).integers(0, 12, n)
    return SparseRows.from_lists([[(1 + k % 3, 1.0), (4 + k % 4, 1.0)] for k in i]), (i % 3 == i % 4).astype(float)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_it_learns_what_no_sum_of_single_features_can_say(dropout: float) -> None:
    policy = Nfm(NfmParams(factors=4, hidden=(8,), dropout=dropout, arm="none", decay=0.0))
    policy.learn(of_one_arm(*interacting(6000)))
    same, other = [[(1 + i, 1.0), (4 + i, 1.0)] for i in range(3)], [[(1, 1.0), (5, 1.0)], [(2, 1.0), (4, 1.0)]]
    assert policy.score(ask(*same)).mean.min() > policy.score(ask(*other)).mean.max() + 0.3


def test_the_deviation_is_linear_regression_on_the_last_layer() -> None:
    policy = Nfm(NfmParams(factors=4, hidden=(6,), arm="none", noise=0.7, ridge=2.0))
    policy.learn(of_one_arm(*interacting(1000)))
    saved = policy.tensors()
    features = [(2, 1.0), (6, 1.0)]
    rows = [int(np.searchsorted(saved["ids"], each)) + 1 for each, _ in features]
    v = saved["factors"][rows]
    phi = with_one(policy._infer(((v.sum(axis=0) ** 2 - (v**2).sum(axis=0)) / 2)[None]))[0]
    precision = 2.0 * np.eye(7) + saved["evidence"]
    assert policy._believed > 0.1
    variance = policy._believed**2 * (phi @ np.linalg.solve(precision, phi)) + (1 / saved["precision"][rows]).sum()
    assert policy.score(ask(features)).deviation[0] == pytest.approx(0.7 * variance**0.5, rel=1e-4)


def test_the_last_layers_evidence_forgets() -> None:
    short, long = (Nfm(NfmParams(arm="none", memory=memory)) for memory in (100.0, 1e9))
    for policy in (short, long):
        policy.learn(of_one_arm(*interacting(2000)))
    # The last column of phi is 1: without forgetting its sum counts the examples.
    counted = int(long.tensors()["examples"][0])
    assert long.tensors()["evidence"][-1, -1] == pytest.approx(counted, rel=1e-4)
    assert short.tensors()["evidence"][-1, -1] < 400


def test_dropout_is_replayed() -> None:
    def taught(seed: int) -> Nfm:
        policy = Nfm(NfmParams(dropout=0.5, seed=seed))
        policy.learn(of_one_arm(*interacting(300)))
        return policy

    assert same_bytes(taught(1).tensors(), taught(1).tensors())
    assert not same_bytes(taught(1).tensors(), taught(2).tensors())


def test_products_of_any_size_are_those_of_numpy() -> None:
    rng = np.random.default_rng(6)
    for n in (0, 1, 255, 256, 3000):
        left, right, beside = rng.normal(size=(n, 16)), rng.normal(size=(16, 64)), rng.normal(size=(n, 64))
        np.testing.assert_allclose(product(left, right), left @ right)
        np.testing.assert_allclose(gram(left, beside), left.T @ beside, atol=1e-12)


def test_the_bytes_do_not_depend_on_the_number_of_threads() -> None:
    program = (
        "import numpy as np, hashlib\n"
        "from banditmesh.bandits.nfm import Nfm\n"
        "from tests.unit.bandits.test_nfm import interacting\n"
        "from tests.unit.bandits.test_hashed import of_one_arm\n"
        "policy = Nfm()\n"
        "policy.learn(of_one_arm(*interacting(9000)))\n"
        "state = b''.join(array.tobytes() for _, array in sorted(policy.tensors().items()))\n"
        "print(hashlib.sha256(state).hexdigest())\n"
    )

    def digest(threads: int) -> str:
        count = str(threads)
        env = {**os.environ, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
        root = Path(__file__).parents[3]
        return subprocess.run(
            [sys.executable, "-c", program], env=env, cwd=root, capture_output=True, check=True
        ).stdout.decode()

    assert digest(1) == digest(2)
