"""Values that obp 0.4.1 gives for the forty rows of `golden`.

They were made once, by its `InverseProbabilityWeighting`, `SelfNormalizedInverseProbabilityWeighting`, `DirectMethod`,
`DoublyRobust`, `SwitchDoublyRobust(tau=1.5)` and `DoublyRobustWithShrinkage(lambda_=2.5)`; clipped IPS by propensities
raised to pi / 1.2; MRDR by its `RegressionModel(fitting_method="mrdr")` of one-hot actions with a `LinearRegression`
without intercept, and `DoublyRobust`. `make bench-learning` compares on the Open Bandit data.
"""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.ope.clipped_ips import ClippedIps
from banditmesh.ope.dm import Dm
from banditmesh.ope.dr import Dr
from banditmesh.ope.dros import Dros
from banditmesh.ope.estimator import Estimator
from banditmesh.ope.ips import Ips
from banditmesh.ope.mrdr import Mrdr, importance
from banditmesh.ope.rows import Rows
from banditmesh.ope.snips import Snips
from banditmesh.ope.switch import Switch

ROW, ARMS = np.arange(40), np.arange(3)
SHOWN = (ROW * ROW + ROW // 3) % 3
POLICY = np.abs(np.sin(ROW[:, None] + ARMS * 1.7)) + 0.05
POLICY /= POLICY.sum(axis=1, keepdims=True)
Q = 0.2 + 0.5 * np.abs(np.sin(0.3 * ROW[:, None] + ARMS))


def golden(q: np.ndarray) -> Rows:
    return Rows.checked(
        keys=ROW,
        rewards=((ROW * 7) % 5 < 2) + (ROW % 4 == 0) * 0.25,
        propensities=0.05 + 0.9 * np.abs(np.cos(ROW * 0.7)),
        targets=POLICY[ROW, SHOWN],
        expected=(POLICY * q).sum(axis=1),
        predicted=q[ROW, SHOWN],
    )


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (Ips(), 0.34647222439076397),
        (ClippedIps(clip=1.2), 0.28061613522090206),
        (Snips(), 0.5024261176726253),
        (Dm(), 0.5203369828220575),
        (Dr(), 0.5275761351579245),
        (Switch(tau=1.5), 0.4801247619404309),
        (Dros(shrinkage=2.5), 0.49558505657463237),
    ],
    ids=lambda each: each.name if isinstance(each, Estimator) else "",
)
def test_values_are_those_of_obp(estimator: Estimator, value: float) -> None:
    estimator.add(golden(Q))
    assert estimator.value == pytest.approx(value, abs=1e-9)


def test_mrdr_with_a_model_of_its_weights_is_obps() -> None:
    rows = golden(Q)
    weights = importance(rows)
    means = np.bincount(SHOWN, weights * rows.rewards) / np.bincount(SHOWN, weights)
    assert means == pytest.approx([0.19650174, 0.61798143, 0.69450818], abs=1e-7)
    mrdr = Mrdr()
    mrdr.add(golden(np.broadcast_to(means, POLICY.shape)))
    assert mrdr.value == pytest.approx(0.4973550460672335, abs=1e-9)
