"""Stage 5: what the policy of each user's variant expects of the candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from banditmesh.bandits.batch import Candidates, Scores
from services.crs_engine.models import LoadedModel
from services.crs_engine.pipeline.batch import Group


def score(group: Group, candidates: Candidates, models: Mapping[str, LoadedModel]) -> Scores:
    """``float32[n_candidates]`` each. ``models``: the models of the group's variants, by name."""
    variants = group.by_variant
    if len(variants) == 1:
        return models[group.placement.variants[variants[0][0]].model].policy.score(candidates)
    mean = np.empty(len(candidates), np.float32)
    deviation = np.empty(len(candidates), np.float32)
    for variant, users in variants:
        start, end = candidates.offsets[users.start], candidates.offsets[users.stop]
        if start < end:
            policy = models[group.placement.variants[variant].model].policy
            mean[start:end], deviation[start:end] = policy.score(candidates.part(users.start, users.stop))
    return Scores(mean, deviation)
