"""Words for hashed features: what one decision was made from, named again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.bandits.features import COMPUTED, Value
from banditmesh.runtime.user_records import STATE_FEATURES
from services.crs_engine.buckets import bucket_name, buckets
from services.crs_engine.catalog import Catalog, content_fields
from services.crs_engine.pipeline.batch import Pool, Slate
from services.crs_engine.pipeline.fatigue import FATIGUE


class FeatureNames:
    """The names of the features of the candidates of one user, found by hashing everything that could have been
    hashed."""

    def __init__(self, slate: Slate, catalog: Catalog) -> None:
        """``slate``: of a single user."""
        self._placement, self._catalog = slate.group.placement, catalog
        self._users, self._now_s = slate.users, slate.rounds[0].view.now_s
        spec, records = self._placement.spec, slate.users.records
        profile = self._placement.users.parse(slate.users.profiles[0])
        self._user: dict[str, dict[int, str]] = {name: _named(name, profile.get(name)) for name in spec.profile}
        for name in spec.state:
            self._user[name] = _named(name, bucket_name(int(buckets(STATE_FEATURES[name](records, self._now_s))[0])))
        for name in spec.context:
            computed = {hashing.categorical_id(name, str(value)): f"{name}={value}" for value in range(24)}
            self._user[name] = computed if name in COMPUTED else _named(name, slate.group.requests[0].context.get(name))

    def of(self, pool: Pool, at: int) -> Mapping[int, str]:
        """Name by feature id, for the candidate at that place."""
        row, source = int(pool.rows[at]), int(pool.sources[at])
        content: dict[str, Value] = {}
        if row >= 0:
            content = content_fields(self._catalog.name_of(row)[0], self._catalog.content(row))
        content["logic"] = self._placement.sources[source].logic or None
        for name, shown in FATIGUE.items():
            content[name] = bucket_name(int(buckets(shown(self._users, pool, self._now_s))[at]))
        if pool.said is not None:
            content["score"], content["rank"] = 1.0, bucket_name(int(buckets(pool.said[at : at + 1, 1].astype(int))[0]))
        fields = {**self._user, **{name: _named(name, content.get(name)) for name in self._placement.spec.own}}
        names = {each: words for ids in fields.values() for each, words in ids.items()}
        for left, right in self._placement.spec.crosses:
            for left_id, left_name in fields[left].items():
                for right_id, right_name in fields[right].items():
                    crossed = hashing.cross(np.array([left_id], np.uint32), np.array([right_id], np.uint32))
                    names[int(crossed[0])] = f"{left_name} × {right_name}"
        return names


def _named(field: str, value: Value) -> dict[int, str]:
    if value is None:
        return {}
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, list | tuple):
        return {each: words for part in value for each, words in _named(field, part).items()}
    if isinstance(value, str):
        return {hashing.categorical_id(field, value): f"{field}={value}"}
    return {hashing.numeric_id(field): field}
