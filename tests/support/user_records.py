"""User records as the joiner would have left them."""

from __future__ import annotations

from banditmesh.bandits.hashing import content_key, key64, service_key
from banditmesh.runtime.user_record import CLICKS, MUTES, TARGETS, UserRecord

_KINDS = {"click": (CLICKS, "clicks"), "mute": (MUTES, "mutes"), "target": (TARGETS, "targets")}


def reacted(record: UserRecord, kind: str, service: str, content_id: str, placement: str, time_s: float) -> UserRecord:
    """The record after one more reaction."""
    section, counter = _KINDS[kind]
    keys = content_key(service, content_id), service_key(service), key64(placement)
    return record.counted(**{"feedback": 1, counter: 1}).remembered(section, int(time_s), *keys)
