"""Estimators on the Open Bandit data (the small sample inside `obp`, CC BY 4.0) against `obp`'s own: what Thompson
sampling would have earned on the stream that was logged uniformly, with a reward model by item and position.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from banditmesh.ope.clipped_ips import ClippedIps
from banditmesh.ope.dm import Dm
from banditmesh.ope.dr import Dr
from banditmesh.ope.dros import Dros
from banditmesh.ope.estimator import Estimator
from banditmesh.ope.ips import Ips
from banditmesh.ope.mrdr import Mrdr, importance
from banditmesh.ope.rows import Rows
from banditmesh.ope.slates import Assumption, ListRows, SlateIps
from banditmesh.ope.snips import Snips
from banditmesh.ope.switch import Switch
from benchmarks.learning.figure import Figure

TOLERANCE = 1e-6
CLIP = 2.0
TAU = 1.2
SHRINKAGE = 3.0


def run(scratch: Path, data: Path) -> Iterator[Figure]:
    """See the module."""
    theirs = obp_estimators()
    for campaign in ("all", "men", "women"):
        logged, target = table("random", campaign), table("bts", campaign)
        n_items = 1 + max(int(logged["item"].max()), int(target["item"].max()))
        # The evaluated policy: how often each item stood at each position in the other stream.
        counts = np.ones((n_items, 3))
        np.add.at(counts, (target["item"], target["position"]), 1)
        policy = (counts / counts.sum(axis=0)).T[logged["position"]]  # [n, n_items]
        clicks, shows = np.full((n_items, 3), 0.1), np.full((n_items, 3), 10.0)
        np.add.at(clicks, (logged["item"], logged["position"]), logged["click"])
        np.add.at(shows, (logged["item"], logged["position"]), 1)
        q = (clicks / shows).T[logged["position"]]
        at = np.arange(len(policy)), logged["item"]
        rows = Rows.checked(at[0], logged["click"], logged["propensity"], policy[at], (policy * q).sum(axis=1), q[at])
        given = {
            "reward": logged["click"],
            "action": logged["item"],
            "pscore": logged["propensity"],
            "action_dist": policy[:, :, None],
            "estimated_rewards_by_reg_model": q[:, :, None],
            "position": np.zeros(len(policy), int),
        }
        ours: list[Estimator] = [
            Ips(),
            ClippedIps(clip=CLIP),
            Snips(),
            Dm(),
            Dr(),
            Switch(tau=TAU),
            Dros(shrinkage=SHRINKAGE),
        ]
        for estimator in ours:
            estimator.add(rows)
            # This obp cannot clip; propensities raised to pi / clip are the same.
            raised = {"pscore": np.maximum(rows.propensities, rows.targets / CLIP)}
            clipped = raised if estimator.name == "clipped_ips" else {}
            peer = float(theirs[estimator.name].estimate_policy_value(**{**given, **clipped}))
            yield _compared(campaign, estimator, peer)
        fitted = obp_mrdr_model(policy, logged)
        peer = float(theirs["dr"].estimate_policy_value(**{**given, "estimated_rewards_by_reg_model": fitted}))
        # The same least squares, one reward a item, by our weights: a weighted mean.
        weight = importance(rows)
        of_item = np.bincount(logged["item"], weight * logged["click"], n_items) / np.maximum(
            np.bincount(logged["item"], weight, n_items), 1e-300
        )
        mrdr = Mrdr()
        mrdr.add(
            Rows.checked(
                at[0], logged["click"], logged["propensity"], policy[at], policy @ of_item, of_item[logged["item"]]
            )
        )
        yield _compared(campaign, mrdr, peer)
        yield from _ranked(campaign, logged, policy)


def _ranked(campaign: str, logged: dict[str, np.ndarray], policy: np.ndarray) -> Iterator[Figure]:
    """Lists of three: the first row of each position in the file, the second one of each, and so on."""
    of_position = [np.flatnonzero(logged["position"] == each) for each in range(3)]
    order = np.column_stack([rows[: min(map(len, of_position))] for rows in of_position]).ravel()
    lists = np.arange(len(order)) // 3
    propensities = logged["propensity"][order]
    targets = policy[order, logged["item"][order]]
    rewards = logged["click"][order]
    slates = importlib.import_module("obp.ope.estimators_slate")

    def up_to(each: np.ndarray) -> np.ndarray:
        return np.cumprod(each.reshape(-1, 3), axis=1)

    def whole(each: np.ndarray) -> np.ndarray:
        return np.repeat(up_to(each)[:, -1], 3)

    given = {"slate_id": lists, "reward": rewards, "position": np.arange(len(order)) % 3}
    peers: dict[Assumption, tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = {
        "standard": ("SlateStandardIPS", "", whole),
        "independence": ("SlateIndependentIPS", "_item_position", np.asarray),
        "cascade": ("SlateRewardInteractionIPS", "_cascade", lambda each: up_to(each).ravel()),
    }
    for assumption, (name, suffix, of) in peers.items():
        scores = {f"pscore{suffix}": of(propensities), f"evaluation_policy_pscore{suffix}": of(targets)}
        peer = float(getattr(slates, name)(len_list=3).estimate_policy_value(**given, **scores))
        estimator = SlateIps(assumption)
        estimator.add(ListRows(lists, rewards, propensities, targets))
        gap = abs(estimator.value - peer)
        what = f"{campaign}: distance of lists by {assumption} from obp's {name}, {peer:.8f}"
        yield Figure("estimators", what, gap, f"<= {TOLERANCE:g}", gap <= TOLERANCE)


def _compared(campaign: str, estimator: Estimator, peer: float) -> Figure:
    gap = abs(estimator.value - peer)
    what = f"{campaign}: distance of {estimator.name} from obp's {peer:.8f}"
    return Figure("estimators", what, gap, f"<= {TOLERANCE:g}", gap <= TOLERANCE)


def obp_mrdr_model(policy: np.ndarray, logged: dict[str, np.ndarray]) -> np.ndarray:
    """float64[n, n_items, 1]: rewards by obp's regression model, fitted for MRDR, one reward a item."""
    from sklearn.linear_model import LinearRegression

    n, n_items = policy.shape
    model = importlib.import_module("obp.ope.regression_model").RegressionModel(
        n_actions=n_items,
        len_list=1,
        action_context=np.eye(n_items),
        base_model=LinearRegression(fit_intercept=False),
        fitting_method="mrdr",
    )
    found: np.ndarray = model.fit_predict(
        context=np.zeros((n, 1)),
        action=logged["item"],
        reward=logged["click"],
        pscore=logged["propensity"],
        action_dist=policy[:, :, None],
    )
    return found


def obp_estimators() -> dict[str, Any]:
    """obp's estimators by our names.

    They work on numpy, but obp's packages import torch (2 GB) for its neural policies: so the module alone is loaded,
    past its package, and the one type that it names stands in.
    """
    if importlib.util.find_spec("torch") is None:
        torch = ModuleType("torch")
        torch.Tensor = type("Tensor", (), {})  # type: ignore[attr-defined]
        sys.modules["torch"] = torch
    package = ModuleType("obp.ope")
    package.__path__ = [str(folder() / "ope")]
    sys.modules["obp.ope"] = package
    ope = importlib.import_module("obp.ope.estimators")
    return {
        "ips": ope.InverseProbabilityWeighting(),
        "clipped_ips": ope.InverseProbabilityWeighting(),
        "snips": ope.SelfNormalizedInverseProbabilityWeighting(),
        "dm": ope.DirectMethod(),
        "dr": ope.DoublyRobust(),
        "switch": ope.SwitchDoublyRobust(tau=TAU),
        "dros": ope.DoublyRobustWithShrinkage(lambda_=SHRINKAGE),
    }


def table(policy: str, campaign: str) -> dict[str, np.ndarray]:
    """Columns of one stream."""
    path = folder() / "dataset" / "obd" / policy / campaign / f"{campaign}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "item": np.array([int(row["item_id"]) for row in rows]),
        "position": np.array([int(row["position"]) - 1 for row in rows]),
        "click": np.array([float(row["click"]) for row in rows]),
        "propensity": np.array([float(row["propensity_score"]) for row in rows]),
    }


def folder() -> Path:
    """Where obp is installed."""
    package = importlib.util.find_spec("obp")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("obp is not installed", name="obp")
    return Path(package.submodule_search_locations[0])
