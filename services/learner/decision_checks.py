"""What a decision's message can hold and no calendar, no column and no name of a file can."""

from __future__ import annotations

from typing import Final

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.lengths import END_S, MAX_CONTENT_ID_BYTES, MAX_NAME_BYTES, MAX_USER_ID_BYTES
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.limits import fits

OUT_OF_RANGE: Final = "out_of_range"
TOO_LONG: Final = "too_long"
MOST_INT32: Final = 2**31 - 1
MOST_INT64: Final = 2**63 - 1
END_MS: Final = END_S * 1000


def check_decision(decision: events_pb2.Decision, at: str) -> None:
    """Raise Unreadable where a number of a decision is out of range, or a text is longer than any that this mesh
    gives. ``at``: the path of the decision."""
    for field, text, most in (
        ("placement", decision.placement, MAX_NAME_BYTES),
        ("service", decision.service, MAX_NAME_BYTES),
        ("content_id", decision.content_id, MAX_CONTENT_ID_BYTES),
        ("user_id", decision.user_id, MAX_USER_ID_BYTES),
    ):
        if not fits(text, most):
            raise Unreadable(TOO_LONG, f"{at}.{field} is longer than {most} bytes: {text[:80]!r}")
    if decision.position > MOST_INT32:
        raise Unreadable(OUT_OF_RANGE, f"{at}.position is {decision.position}, beyond {MOST_INT32}")
    if decision.model_version > MOST_INT64:
        raise Unreadable(OUT_OF_RANGE, f"{at}.model_version is {decision.model_version}, beyond {MOST_INT64}")
    check_time(f"{at}.decided_at_ms", decision.decided_at_ms)


def check_time(field: str, time_ms: int, *, before_ms: int = END_MS) -> None:
    """Raise Unreadable for milliseconds before 1970, or from ``before_ms`` on: no later than the year 9999."""
    if not 0 <= time_ms < min(before_ms, END_MS):
        raise Unreadable(OUT_OF_RANGE, f"{field} is {time_ms}, not from 0 to {min(before_ms, END_MS) - 1}")
