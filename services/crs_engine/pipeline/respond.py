"""Stage 8: the answers: content, signed token, or why there is none."""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from banditmesh.bandits import segments
from banditmesh.bandits.batch import SparseRows
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.crs_engine.v1.crs_engine_pb2 import SelectedContent
from banditmesh.contracts.events.v1.events_pb2 import Decision, Features
from banditmesh.contracts.provider.v1.provider_pb2 import Content
from banditmesh.runtime.token import KeyRing
from services.crs_engine.catalog import Catalog
from services.crs_engine.decide import Chosen, Decided
from services.crs_engine.pipeline.batch import Group

IMPRESSION_ID_BYTES = 16
_FEATURES = Decision.FEATURES_FIELD_NUMBER
_TOKEN, _ID = SelectedContent.IMPRESSION_TOKEN_FIELD_NUMBER, SelectedContent.IMPRESSION_ID_FIELD_NUMBER
_IDS, _VALUES = Features.IDS_FIELD_NUMBER, Features.VALUES_FIELD_NUMBER


def respond(group: Group, chosen: Chosen, catalog: Catalog, ring: KeyRing, now_s: float) -> list[list[bytes]]:
    """For each user the contents chosen, the first position first, each a serialised ``SelectedContent``; empty for a
    user without any.

    Serialised messages that are laid end to end are one message with the fields of all. So the parts that many answers
    share (the content's, the variant's, the logic's) are serialised once, and only joined here.
    """
    shared = _SharedParts(group, chosen, now_s)
    users, positions = np.nonzero(chosen.choice.chosen >= 0)
    at = chosen.choice.chosen[users, positions]
    features = _wire(chosen.candidates.context.take(users).beside(chosen.candidates.features.take(at)))
    # One system call for the batch: os.urandom costs 1 us each.
    random = os.urandom(IMPRESSION_ID_BYTES * len(at))
    answers: list[list[bytes]] = [[] for _ in group.requests]
    for number, (user, position, row, source, propensity, variant, key) in enumerate(
        zip(
            users.tolist(),
            positions.tolist(),
            chosen.pool.rows[at].tolist(),
            chosen.pool.sources[at].tolist(),
            chosen.choice.propensity[users, positions].tolist(),
            group.variants[users].tolist(),
            chosen.pool.contents[at].tolist(),
            strict=True,
        )
    ):
        impression_id = random[number * IMPRESSION_ID_BYTES : (number + 1) * IMPRESSION_ID_BYTES]
        own = Decision(
            impression_id=impression_id, user_id=group.requests[user].user_id, position=position, propensity=propensity
        )
        if row >= 0 and catalog.name_of(row)[1]:
            decided, shown = catalog.decided(row), catalog.shown(row)
        else:
            decided, shown = _bare(*chosen.popular.name(key))
        body = (
            own.SerializeToString(),
            decided,
            shared.decided[variant],
            shared.decided_logic[source],
            features[number],
        )
        token = _field(_TOKEN, ring.seal(b"".join(body)))
        answers[user].append(
            b"".join((shown, shared.shown[variant], shared.shown_logic[source], token, _field(_ID, impression_id)))
        )
    return answers


class _SharedParts:
    """Serialised parts of decisions and answers: by variant, and by source (the last one is the fallback's)."""

    def __init__(self, group: Group, chosen: Chosen, now_s: float) -> None:
        placement = group.placement
        self.decided = [
            Decision(
                placement=placement.name,
                variant=variant.name,
                model=variant.model if chosen.models else "",
                model_version=chosen.models[variant.model].version if chosen.models else 0,
                decided_at_ms=int(now_s * 1000),
                origin=chosen.origin,
            ).SerializeToString()
            for variant in placement.variants
        ]
        self.shown = [
            SelectedContent(variant=variant.name, origin=chosen.origin).SerializeToString()
            for variant in placement.variants
        ]
        self.decided_logic, self.shown_logic = placement.decided_logic, placement.shown_logic


def _bare(service: str, content_id: str) -> tuple[bytes, bytes]:
    """The parts of a content of which only the name is known."""
    decided = Decision(service=service, content_id=content_id)
    return decided.SerializeToString(), SelectedContent(
        service=service, content=Content(content_id=content_id)
    ).SerializeToString()


def _wire(rows: SparseRows) -> list[bytes]:
    """``Decision.features`` of each row, serialised: a packed repeated fixed32 or float is the array's own bytes.

    Values are left out where all of a row are 1, which is what an empty list means.
    """
    ids, values = rows.ids.astype("<u4").tobytes(), rows.values.astype("<f4").tobytes()
    offsets = (rows.offsets * 4).tolist()
    plain = segments.sums((rows.values != 1.0).astype(np.int64), rows.offsets) == 0
    return [
        _field(_FEATURES, _field(_IDS, ids[start:end]) + (b"" if ones else _field(_VALUES, values[start:end])))
        for start, end, ones in zip(offsets[:-1], offsets[1:], plain.tolist(), strict=True)
    ]


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return _head(number, len(payload)) + payload


@lru_cache(maxsize=4096)
def _head(number: int, size: int) -> bytes:
    """Number (below 16), wire type 2, and the length as a varint."""
    head = bytearray((number << 3 | 2,))
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def no_content(decided: Decided, user: int) -> pb.NoContent:
    """Why nothing is shown to the user at that place in the group."""
    until_s = float(decided.users.muted_until_s[user])
    if until_s:
        return pb.NoContent(
            reason=pb.NO_CONTENT_REASON_MUTED,
            message="the user muted something in this slot a short while ago",
            until=Timestamp(seconds=int(until_s)),
        )
    fallen = decided.fallen
    parts = [decided.scored.filtered] + ([fallen.filtered] if fallen is not None else [])
    removed = sum(int(part.view.pool.counts[user]) for part in parts)
    fallback = (
        "the fallback has none either"
        if decided.group.placement.config.fallback != "none"
        else "the placement has no fallback"
    )
    if removed:
        return pb.NoContent(
            reason=pb.NO_CONTENT_REASON_ALL_FILTERED,
            message=f"filters removed all {removed} candidates, the fallback's included; "
            "ExplainDecision says which and why",
        )
    known = (
        "the user has no candidates"
        if decided.users.reached
        else "Redis is away, so the user's candidates are not known"
    )
    return pb.NoContent(reason=pb.NO_CONTENT_REASON_NO_CANDIDATES, message=f"{known}, and {fallback}")
