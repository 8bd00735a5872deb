"""Reactions as they arrive: which of them are new, which are too late, and what they do to users' records. Plain
functions over what Redis knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from banditmesh.bandits.hashing import content_key, key64, service_key
from banditmesh.runtime.user_record import CLICKS, SECTIONS, TARGETS, TASTE_BITS, Position, UserRecord
from services.joiner.events import ReadReaction
from services.joiner.join import belongs
from services.joiner.ledger import Seen, StoredReaction

STREAM = "reactions"
TAKEN_OVER = {CLICKS.name, TARGETS.name}
"""Sections that `UserRecord.tasted` keeps instead."""
_SECTION = {section.name: section for section in SECTIONS}


def judge(
    reactions: Sequence[ReadReaction], seen: Sequence[Seen], window_ms: int
) -> list[tuple[ReadReaction, StoredReaction]]:
    """Return the reactions that are the first of their key, each with what is to be stored; the others are duplicates.

    A reaction is late iff its impression is closed, has not got it, and the broker's times say so. A reaction that
    belongs by its time to an impression that is closed was read before the impression was closed, and whoever closed
    it has seen it: Redis has forgotten the reaction since, and it is stored again, for nobody.

    Args:
        reactions: In the order of their offsets.
        seen: What is known of each.
        window_ms: The longest join window, after which impressions are closed.
    """
    new: list[tuple[ReadReaction, StoredReaction]] = []
    here: set[tuple[bytes, str]] = set()
    for read, known in zip(reactions, seen, strict=True):
        wanted = (read.decision.impression_id, read.key)
        if wanted in here or (known.first is not None and known.first.offset < read.offset):
            continue
        here.add(wanted)
        closed = known.closed
        late = closed is not None and known.first is None and not belongs(read.time_ms, closed.time_ms, window_ms)
        stored = StoredReaction(*wanted, read.offset, read.time_ms, late, read.value, closed is not None)
        new.append((read, stored))
    return new


def advance(
    records: Mapping[str, UserRecord], reactions: Iterable[ReadReaction], log: int, remembers: int = 0
) -> dict[str, UserRecord]:
    """Return the records that change when reactions are applied to them, by user id. Applying again changes nothing.

    A late reaction counts too: it is no part of an example any more, but the user did it.

    Args:
        records: Of users, by user id; reactions of others are passed over.
        reactions: In the order of their offsets.
        log: Of which log those offsets are.
        remembers: For how many contents the mesh needs what a user did with each; 0: it does not.
    """
    changed: dict[str, UserRecord] = {}
    for each in reactions:
        user_id = each.decision.user_id
        record = changed.get(user_id, records.get(user_id))
        if record is not None and each.offset > record.applied(STREAM, log):
            changed[user_id] = _applied(record, each, remembers).moved(Position(STREAM, log, each.offset))
    return changed


def _applied(record: UserRecord, read: ReadReaction, remembers: int) -> UserRecord:
    kind, decision = read.kind, read.decision
    if kind is None:
        return record
    record = record.counted(**kind.counted(read.amount))
    content, time_s = content_key(decision.service, decision.content_id), read.time_ms // 1000
    if remembers and kind.name in TASTE_BITS:
        record = record.tasted(kind.name, read.amount, time_s, content, remembers)
    if not kind.section or (remembers and kind.section in TAKEN_OVER):
        return record
    return record.remembered(
        _SECTION[kind.section],
        time_s,
        content,
        service_key(decision.service),
        key64(decision.placement),
    )
