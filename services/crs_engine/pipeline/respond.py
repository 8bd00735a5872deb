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
from banditmesh.retrieval import user_vector
from banditmesh.runtime.token import NEAR_TOKEN_BYTES, KeyRing
from services.crs_engine.catalog import Catalog
from services.crs_engine.pipeline.batch import Group, Outcome, Round, Slate
from services.crs_engine.pipeline.features import of_shown

IMPRESSION_ID_BYTES = 16
_FEATURES = Decision.FEATURES_FIELD_NUMBER
_TOKEN, _ID = SelectedContent.IMPRESSION_TOKEN_FIELD_NUMBER, SelectedContent.IMPRESSION_ID_FIELD_NUMBER
_OWN_ID, _USER = Decision.IMPRESSION_ID_FIELD_NUMBER, Decision.USER_ID_FIELD_NUMBER
_VECTOR = Decision.USER_VECTOR_FIELD_NUMBER
_PROPENSITY = bytes((Decision.PROPENSITY_FIELD_NUMBER << 3 | 5,))
"""Before the four bytes of a float."""
_FLOAT_BYTES = 4
_IDS, _VALUES = Features.IDS_FIELD_NUMBER, Features.VALUES_FIELD_NUMBER


def respond(slate: Slate, catalog: Catalog, ring: KeyRing, now_s: float) -> list[Outcome]:
    """The answer to each user of a group."""
    contents: list[list[bytes]] = [[] for _ in slate.group.requests]
    for each in slate.rounds:
        if len(each.shown[0]):
            _append(contents, slate, each, catalog, ring, now_s)
    return [Outcome(shown) if shown else Outcome((), no_content(slate, user)) for user, shown in enumerate(contents)]


def _append(
    contents: list[list[bytes]], slate: Slate, drawn: Round, catalog: Catalog, ring: KeyRing, now_s: float
) -> None:
    """Put what a round has chosen behind each user's contents so far, each as a serialised ``SelectedContent``.

    Serialised messages that are laid end to end are one message with the fields of all. So the parts that many answers
    share (the content's, the variant's, the logic's) are serialised once, and only joined here.
    """
    group = slate.group
    placement = group.placement
    shared = _SharedParts(group, drawn, now_s)
    users, columns, at = drawn.shown
    features = _wire(of_shown(group, slate.users, drawn, catalog, now_s))
    vectors = None if slate.users.vectors is None else user_vector.pack(slate.users.vectors)
    propensities = drawn.choice.propensity[users, columns].astype("<f4").tobytes()
    own_id_head, id_head = _head(_OWN_ID, IMPRESSION_ID_BYTES), _head(_ID, IMPRESSION_ID_BYTES)
    # One system call for the batch: os.urandom costs 1 us each.
    random = os.urandom(IMPRESSION_ID_BYTES * len(at))
    for number, (user, position, row, source, variant) in enumerate(
        zip(
            users.tolist(),
            (drawn.first[users] + columns).tolist(),
            drawn.pool.rows[at].tolist(),
            drawn.pool.sources[at].tolist(),
            group.variants[users].tolist(),
            strict=True,
        )
    ):
        impression_id = random[number * IMPRESSION_ID_BYTES : (number + 1) * IMPRESSION_ID_BYTES]
        user_id = group.requests[user].user_id.encode()
        body = (
            own_id_head,
            impression_id,
            _head(_USER, len(user_id)),
            user_id,
            _position(position),
            _PROPENSITY,
            propensities[number * _FLOAT_BYTES : (number + 1) * _FLOAT_BYTES],
            b"" if vectors is None else _field(_VECTOR, vectors[user]),
            catalog.decided(row),
            shared.decided[variant],
            shared.decided_logic[source],
            features[number],
            b"" if drawn.versions is None else Decision(model_version=int(drawn.versions[user])).SerializeToString(),
        )
        sealed = ring.seal(b"".join(body))
        placement.large_tokens += len(sealed) > NEAR_TOKEN_BYTES
        shown = (
            catalog.shown(row),
            shared.shown[variant],
            shared.shown_logic[source],
            _head(_TOKEN, len(sealed)),
            sealed,
            id_head,
            impression_id,
        )
        contents[user].append(b"".join(shown))


class _SharedParts:
    """Serialised parts of decisions and answers: by variant, and by source."""

    def __init__(self, group: Group, drawn: Round, now_s: float) -> None:
        placement = group.placement
        self.decided = [
            Decision(
                placement=placement.name,
                variant=variant.name,
                model=variant.model if drawn.models else "",
                model_version=drawn.models[variant.model].version if drawn.models else 0,
                decided_at_ms=int(now_s * 1000),
                origin=drawn.origin,
            ).SerializeToString()
            for variant in placement.variants
        ]
        self.shown = [
            SelectedContent(variant=variant.name, origin=drawn.origin).SerializeToString()
            for variant in placement.variants
        ]
        self.decided_logic, self.shown_logic = placement.decided_logic, placement.shown_logic


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


@lru_cache(maxsize=256)
def _position(position: int) -> bytes:
    return Decision(position=position).SerializeToString()


@lru_cache(maxsize=4096)
def _head(number: int, size: int) -> bytes:
    """Number (below 16), wire type 2, and the length as a varint."""
    head = bytearray((number << 3 | 2,))
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def no_content(slate: Slate, user: int) -> pb.NoContent:
    """Why nothing is shown to the user at that place in the group."""
    until_s = float(slate.users.muted_until_s[user])
    if until_s:
        return pb.NoContent(
            reason=pb.NO_CONTENT_REASON_MUTED,
            message="the user muted something in this slot a short while ago",
            until=Timestamp(seconds=int(until_s)),
        )
    proposed, *filled_in = (int(each.view.pool.counts[user]) for each in slate.rounds)
    n_fallback = sum(filled_in)
    if proposed + n_fallback:
        return pb.NoContent(
            reason=pb.NO_CONTENT_REASON_ALL_FILTERED,
            message=f"filters or rules removed all candidates, {proposed} of the sources and {n_fallback} of the "
            "fallback; ExplainDecision says which and why",
        )
    known = (
        "the user has no candidates" if slate.users.reached else "Redis is away, so the user's candidates are not known"
    )
    fallback = "the fallback has none either" if slate.group.placement.fallbacks else "the placement has no fallback"
    return pb.NoContent(reason=pb.NO_CONTENT_REASON_NO_CANDIDATES, message=f"{known}, and {fallback}")
