"""Stage 1: what each user's mapped candidates, profile and state are, out of the bytes of one read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.runtime.packing import VERSION, unpack_candidate_batch
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine.compiled_placement import Layout
from services.crs_engine.pipeline.batch import Group, Pool, Users

_NO_ROWS = np.zeros(0, np.int64)
_NO_KEYS = np.zeros(0, np.uint64)


def unreached(group: Group) -> tuple[Users, Pool]:
    """Users of whom nothing is known, because the store is away, without candidates."""
    nothing = [None] * len(group)
    users = Users(
        False,
        [b""] * len(group),
        group.placement.users.rows([b""] * len(group)),
        UserRecords(nothing),
        np.zeros(len(group)),
    )
    return users, Pool(np.zeros(len(group) + 1, np.int64), _NO_KEYS, _NO_KEYS, _NO_ROWS, _NO_ROWS)


def unpack(group: Group, layout: Layout, values: Sequence[Sequence[bytes | None]], now_s: float) -> tuple[Users, Pool]:
    """Take apart what the store said.

    Args:
        group: The users.
        layout: By which ``values`` was asked for.
        values: For each user the values in the order of :meth:`Layout.keys`.
        now_s: The present, seconds since the Unix epoch.

    Returns:
        The users, and the candidates of those whose slot is not muted, in the order of the placement's sources.
    """
    n_live = len(layout.tails)
    states = UserRecords([row[-1] for row in values])
    profiles = _profiles([row[-2] for row in values], layout.profile_version)
    muted_until_s = muted_slots(group, states, now_s)
    users = Users(True, profiles, group.placement.users.rows(profiles), states, muted_until_s)

    counts, contents = unpack_candidate_batch(
        [value for row in values for value in row[:n_live]], np.tile(layout.versions, len(values))
    )
    sources = np.repeat(np.tile(layout.sources, len(values)), counts)
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(counts.reshape(len(values), n_live).sum(axis=1), out=offsets[1:])
    if muted_until_s.any():
        free = np.repeat(muted_until_s == 0, np.diff(offsets))
        offsets, contents, sources = segments.kept_offsets(offsets, free), contents[free], sources[free]
    return users, Pool(offsets, contents, group.placement.service_keys[sources], sources, _NO_ROWS)


def muted_slots(group: Group, states: UserRecords, now_s: float) -> NDArray[np.float64]:
    """``float64[n_users]``: until when the slot stays empty for each user, in seconds since the Unix epoch; 0: it
    does not."""
    until_s = np.zeros(len(group))
    if len(states.mute_events):
        ends_s = states.mute_events["time_s"] + group.placement.config.mute.slot_for
        here = (states.mute_events["placement"] == group.placement.key) & (ends_s > now_s)
        np.maximum.at(until_s, states.mute_owners[here], ends_s[here])
    return until_s


def _profiles(values: Sequence[bytes | None], version: int) -> list[bytes]:
    if version < 0:
        return [b""] * len(values)
    head = VERSION.pack(version)
    return [value[VERSION.size :] if value is not None and value.startswith(head) else b"" for value in values]
