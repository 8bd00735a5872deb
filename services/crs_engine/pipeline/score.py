"""Stage 5: what the policy of each user's variant expects of the candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from services.crs_engine.models import LoadedModel
from services.crs_engine.pipeline.batch import Group


def score(group: Group, candidates: Candidates, models: Mapping[str, LoadedModel]) -> Scores:
    """``float32[n_candidates]`` each. ``models``: by name, those of the group's variants."""
    variants = group.by_variant()
    if len(variants) == 1:
        return models[group.placement.variants[variants[0][0]].model].policy.score(candidates)
    mean = np.empty(len(candidates), np.float32)
    deviation = np.empty(len(candidates), np.float32)
    for variant, users in variants:
        start, end = candidates.offsets[users.start], candidates.offsets[users.stop]
        if start < end:
            policy = models[group.placement.variants[variant].model].policy
            mean[start:end], deviation[start:end] = policy.score(part(candidates, users))
    return Scores(mean, deviation)


def part(candidates: Candidates, users: slice) -> Candidates:
    """The candidates of users that stand together, without a copy of what is large."""
    start, end = int(candidates.offsets[users.start]), int(candidates.offsets[users.stop])
    return Candidates(
        candidates.offsets[users.start : users.stop + 1] - start,
        candidates.contents[start:end],
        candidates.logics[start:end],
        candidates.services[start:end],
        _part(candidates.context, users.start, users.stop),
        _part(candidates.features, start, end),
    )


def _part(rows: SparseRows, start: int, stop: int) -> SparseRows:
    first, last = int(rows.offsets[start]), int(rows.offsets[stop])
    return SparseRows(rows.offsets[start : stop + 1] - first, rows.ids[first:last], rows.values[first:last])
