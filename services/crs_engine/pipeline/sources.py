"""Stage 1: what is known of the users, and what each source proposes to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.runtime.packing import VERSION, unpack_candidate_batch, unpack_score_batch
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.pipeline.batch import Group, Mask, Pool, Users, UserValues
from services.crs_engine.pipeline.retrievers import Retrievers
from services.crs_engine.pipeline.retrievers.base import Proposed, Retrieved, askers

UserVectors = NDArray[np.float32] | None
_NO_ROWS = np.zeros(0, np.int64)


def read(
    group: Group, values: UserValues, now_s: float, vectors: Callable[[UserRecords], UserVectors] = lambda _: None
) -> Users:
    """Take apart what is known of the users.

    Args:
        group: The users.
        values: What Redis has of them.
        now_s: Seconds since the Unix epoch.
        vectors: From their records to :attr:`Users.vectors`.
    """
    records = UserRecords([row[-1] for row in values.rows])
    profiles = _profiles([row[-2] for row in values.rows], values.layout.profile_version)
    return Users(
        values.reached,
        profiles,
        group.placement.users.read(profiles),
        records,
        muted_slots(group, records, now_s),
        vectors(records),
    )


def propose(
    group: Group,
    users: Users,
    values: UserValues,
    retrievers: Retrievers,
    now_s: float,
    known: Mask | None = None,
) -> Pool:
    """The candidates of the placement's sources, in their order, for the users whose slot is not muted. ``known``:
    bool[n_users], whose candidates are known already."""
    placement, free = group.placement, users.muted_until_s == 0
    if known is not None:
        free = free & ~known
    pool = _mapped(placement, values, None if free.all() else free)
    for name, first_source in placement.retrieved_from.items():
        for asked in askers(group, users, free, name, now_s):
            proposed = retrievers[name].propose(asked)
            counts = np.zeros(len(group), np.int64)
            counts[asked.who] = segments.lengths(proposed.offsets)
            pool = _merged(pool, _proposed_pool(proposed, counts, first_source, placement))
    return pool


def _proposed_pool(
    proposed: Proposed, counts: NDArray[np.int64], first_source: int, placement: CompiledPlacement
) -> Pool:
    """What a retriever proposes as candidates. ``counts``: int64[n_users]; ``first_source``: see
    :func:`retrieved_pool`."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    services = proposed.services
    said = _said(proposed.scores, segments.ranks(offsets)) if placement.uses_said else None
    return Pool(offsets, proposed.contents, placement.shown_services[services], first_source + services, _NO_ROWS, said)


def _said(scores: NDArray[np.float32], ranks: NDArray[np.int64]) -> NDArray[np.float32]:
    """``float32[n, 2]``: see :attr:`Pool.said`."""
    said = np.empty((len(scores), 2), np.float32)
    said[:, 0], said[:, 1] = scores, ranks
    return said


def _mapped(placement: CompiledPlacement, values: UserValues, free: Mask | None) -> Pool:
    """What the services' own logics propose. ``free``: bool[n_users], to whom; None: to all."""
    layout, rows = values.layout, values.rows
    n_live = len(layout.sources)
    counts, contents = unpack_candidate_batch(
        [value for row in rows for value in row[:n_live]], np.tile(layout.versions, len(rows))
    )
    sources = np.repeat(np.tile(layout.sources, len(rows)), counts)
    said = None
    if placement.uses_said:
        values_of_all = [value for row in rows for value in row[:n_live]]
        bounds = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=bounds[1:])
        said = _said(unpack_score_batch(values_of_all, counts), segments.ranks(bounds))
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts.reshape(len(rows), n_live).sum(axis=1), out=offsets[1:])
    if free is not None:
        theirs = np.repeat(free, segments.lengths(offsets))
        offsets, contents, sources = segments.kept_offsets(offsets, theirs), contents[theirs], sources[theirs]
        said = None if said is None else said[theirs]
    return Pool(offsets, contents, placement.service_keys[sources], sources, _NO_ROWS, said)


def retrieved_pool(retrieved: Retrieved, first_source: int, placement: CompiledPlacement, users: Mask) -> Pool:
    """What a retriever proposes, as candidates of those users (bool[n_users]).

    Args:
        retrieved: The contents.
        first_source: The source that stands for the retriever's contents of the first of the placement's services;
            the others follow it.
        placement: Where.
        users: Who gets them.
    """
    offsets = np.zeros(len(users) + 1, np.int64)
    np.cumsum(users * len(retrieved), out=offsets[1:])
    n = int(np.count_nonzero(users))
    said = np.tile(_said(retrieved.scores, np.arange(len(retrieved))), (n, 1)) if placement.uses_said else None
    return Pool(
        offsets,
        np.tile(retrieved.contents, n),
        np.tile(placement.shown_services[retrieved.services], n),
        np.tile(first_source + retrieved.services, n),
        _NO_ROWS,
        said,
    )


def _merged(left: Pool, right: Pool) -> Pool:
    """The candidates of both pools (not hydrated yet), each user's in the order of the sources."""
    sources = np.concatenate([left.sources, right.sources])
    order = np.lexsort((sources, np.concatenate([left.owners, right.owners])))
    said = None
    if left.said is not None and right.said is not None:
        said = np.concatenate([left.said, right.said])[order]
    return Pool(
        left.offsets + right.offsets,
        np.concatenate([left.contents, right.contents])[order],
        np.concatenate([left.services, right.services])[order],
        sources[order],
        _NO_ROWS,
        said,
    )


def muted_slots(group: Group, records: UserRecords, now_s: float) -> NDArray[np.float64]:
    """``float64[n_users]``: until when the slot stays empty for each user, in seconds since the Unix epoch; 0: it
    does not."""
    until_s = np.zeros(len(group))
    if len(records.mute_events):
        ends_s = records.mute_events["time_s"] + group.placement.config.mute.slot_for
        here = (records.mute_events["placement"] == group.placement.key) & (ends_s > now_s)
        np.maximum.at(until_s, records.mute_owners[here], ends_s[here])
    return until_s


def _profiles(values: Sequence[bytes | None], version: int) -> list[bytes]:
    if version < 0:
        return [b""] * len(values)
    head = VERSION.pack(version)
    return [value[VERSION.size :] if value is not None and value.startswith(head) else b"" for value in values]
