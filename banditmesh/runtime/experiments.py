"""The experiment of a placement as it is in force: what ``mesh.yaml`` says, less the variants that are stopped.

Engines assign users by it, the learner counts by it, and both must mean the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict

from banditmesh.bandits.hashing import key64
from banditmesh.experiments.era import Plan
from banditmesh.runtime.experiment_options import HOLDOUT, NOT_IN_LAYER
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.variants import Experiment


def weights_in_force(experiment: Experiment, stopped: Collection[str] = ()) -> dict[str, float]:
    """The weight of each variant: 0 of a stopped one. When nobody would be left, all are served by the control."""
    weights = {name: 0.0 if name in stopped else variant.weight for name, variant in experiment.variants.items()}
    if not any(weights.values()):
        weights[experiment.control_name] = 1.0
    return weights


def plan_of(placement: Placement, stopped: Collection[str] = ()) -> Plan:
    """What the learner counts by. Holdout, and who is not in the layer, are variants here."""
    experiment = placement.experiment
    weights = weights_in_force(experiment, stopped)
    layer = 1.0 if experiment.layer is None else experiment.layer.users[1] - experiment.layer.users[0]
    inside = (1 - experiment.holdout) * layer / sum(weights.values())
    shares = {name: weight * inside for name, weight in weights.items()}
    if experiment.holdout:
        shares[HOLDOUT] = experiment.holdout
    if layer < 1:
        shares[NOT_IN_LAYER] = (1 - experiment.holdout) * (1 - layer)
    return Plan(
        salt=experiment.salt,
        weights=shares,
        control=experiment.control_name,
        targets=tuple(sorted(placement.rewards.targets)),
        compared=tuple(name for name in experiment.variants if name != experiment.control_name),
        starts_ms=int(experiment.starts_s * 1000),
        aa=experiment.aa,
    )


def digest(plan: Plan) -> str:
    """Names a plan: what engines count of selections is kept beside it."""
    return f"{key64(json.dumps(asdict(plan), sort_keys=True)):016x}"
