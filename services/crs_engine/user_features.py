"""The user's side of the features, for a whole batch: profile, live state and the moment, each hashed as rarely as
possible."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.blocks import FieldBlock
from banditmesh.bandits.features import COMPUTED, FeatureSpec, Featurizer, Value
from banditmesh.runtime.packing import Profile
from banditmesh.runtime.user_records import STATE_FEATURES, UserRecords
from services.crs_engine import local_time
from services.crs_engine.buckets import bucket_ids, buckets

USED_SERVICES: Final = "used_services"
MOST_PROFILES: Final = 100_000
MOST_PROFILE_BYTES: Final = 64 << 20
"""Of the distinct profiles that are remembered; one has up to 4 KiB."""
_QUARTER_S: Final = 900


class ProfileRows(NamedTuple):
    """What becomes of the profiles of n users: copies, so that they stay true whatever the table does meanwhile.

    Attributes:
        ids, values: uint32 and float32[n, columns of the profile's features].
        used: bool[n, n_sources], whether the user uses the source's service, by the profile's ``used_services``.
        knows_services: bool[n], whether the profile says which services the user uses.
        zones: n names of time zones, empty where the profile has none; none at all where nobody asks for the hour.
    """

    ids: NDArray[np.uint32]
    values: NDArray[np.float32]
    used: NDArray[np.bool_]
    knows_services: NDArray[np.bool_]
    zones: Sequence[str]


class UserFeatures:
    """The user block of one placement, with the columns of ``FeatureSpec.user``.

    Equal profiles are equal bytes (:func:`packing.pack_profile`), and most users share theirs with many: each
    distinct one is parsed and hashed once.

    Attributes:
        unreadable: Profiles that were no JSON object, ever.
        featurizer: Counts the broken values of profiles in ``dropped``.
    """

    def __init__(self, spec: FeatureSpec, services: Sequence[str], most_profiles: int = MOST_PROFILES) -> None:
        """``services``: the service of each of the placement's sources; none when nobody asks who is eligible."""
        self.unreadable = 0
        self._most_profiles = most_profiles
        self.featurizer = Featurizer(
            FeatureSpec(
                profile=spec.profile,
                multi_valued={name: spec.multi_valued[name] for name in spec.profile if name in spec.multi_valued},
            ),
            strict=False,
        )
        self._services = services
        self._state = spec.state
        self._moments = Featurizer(FeatureSpec(context=spec.context, time_zone=spec.time_zone))
        self._requested = frozenset(spec.context) - {*COMPUTED}
        self._computed = tuple(name for name in spec.context if name in COMPUTED)
        self._clock_columns = [self._moments.spec.columns(spec.context)[name].start for name in self._computed]
        self._moment: tuple[int, FieldBlock] = (-1, self._moments.users([{}], [{}], np.zeros(1)))
        profile_end = self.featurizer.spec.user_columns
        self._columns = (profile_end, profile_end + len(spec.state), spec.user_columns)
        self._forget()

    def read(self, profiles: Sequence[bytes]) -> ProfileRows:
        """What becomes of each profile (its JSON; empty: the user has none).

        The table of those seen before is forgotten now and then, while batches that it was read for are under way:
        its rows are gathered here, and no number of a row leaves this object.
        """
        too_many = len(self._row_of) + len(profiles) > self._most_profiles
        if too_many or self._profile_bytes > MOST_PROFILE_BYTES:
            self._forget()
        known = self._row_of
        rows = np.array([known[text] if text in known else self._add(text) for text in profiles], np.int64)
        zones = [self._zones[row] for row in rows.tolist()] if self._computed else ()
        return ProfileRows(self._ids[rows], self._values[rows], self._used[rows], self._knows_services[rows], zones)

    def block(
        self, profiles: ProfileRows, records: UserRecords, contexts: Sequence[Mapping[str, str]], now_s: float
    ) -> FieldBlock:
        """The user block of n users. ``profiles``: from :meth:`read`; ``contexts``: what came with each request."""
        profile_end, state_end, end = self._columns
        n = len(profiles.ids)
        ids = np.empty((n, end), np.uint32)
        values = np.empty((n, end), np.float32)
        ids[:, :profile_end], values[:, :profile_end] = profiles.ids, profiles.values
        for column, name in enumerate(self._state):
            ids[:, profile_end + column] = bucket_ids(name)[buckets(STATE_FEATURES[name](records, now_s))]
            values[:, profile_end + column] = 1.0
        if state_end < end:
            moment = self._at(now_s, contexts)
            ids[:, state_end:], values[:, state_end:] = moment.ids, moment.values
            own = ids[:, state_end:]
            for row, (context, of_profile) in enumerate(zip(contexts, profiles.zones, strict=False)):
                zone = context.get(local_time.TIME_ZONE) or of_profile
                if zone and (theirs := local_time.moment_ids(self._computed, zone, now_s)) is not None:
                    own[row, self._clock_columns] = theirs
        return FieldBlock(ids, values)

    def _at(self, now_s: float, contexts: Sequence[Mapping[str, str]]) -> FieldBlock:
        """The columns of the moment: one row for each user, or one row that is the same for all."""
        if any(not self._requested.isdisjoint(context) for context in contexts):
            nothing: list[Mapping[str, Value]] = [{}] * len(contexts)
            return self._moments.users(nothing, nothing, np.full(len(contexts), now_s), contexts)
        # No clock of the world turns its hour within a quarter of one.
        quarter = int(now_s // _QUARTER_S)
        if self._moment[0] != quarter:
            self._moment = (quarter, self._moments.users([{}], [{}], np.array([now_s])))
        return self._moment[1]

    def _forget(self) -> None:
        self._row_of: dict[bytes, int] = {}
        self._profile_bytes = 0
        self._zones: list[str] = []
        self._ids = np.zeros((256, self._columns[0]), np.uint32)
        self._values = np.zeros((256, self._columns[0]), np.float32)
        self._used = np.zeros((256, len(self._services)), np.bool_)
        self._knows_services = np.zeros(256, np.bool_)
        self._add(b"")

    def _add(self, text: bytes) -> int:
        row = self._row_of[text] = len(self._row_of)
        self._profile_bytes += len(text)
        if row == len(self._ids):
            self._ids, self._values, self._used, self._knows_services = (
                np.concatenate([a, np.zeros_like(a)])
                for a in (self._ids, self._values, self._used, self._knows_services)
            )
        profile = self.parse(text)
        self._zones.append(local_time.as_text(profile.get(local_time.TIME_ZONE)))
        block = self.featurizer.users([profile], [{}], np.zeros(1))
        self._ids[row], self._values[row] = block.ids[0], block.values[0]
        used = profile.get(USED_SERVICES)
        listed = used if isinstance(used, list) else [used]
        self._used[row] = [service in listed for service in self._services]
        self._knows_services[row] = used is not None
        return row

    def parse(self, text: bytes) -> Profile:
        """The profile of a JSON text; empty when it is unreadable, which is counted."""
        if not text:
            return {}
        try:
            profile: object = json.loads(text)
        except ValueError:
            profile = None
        if not isinstance(profile, dict):
            self.unreadable += 1
            return {}
        return profile
