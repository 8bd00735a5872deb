"""What is wrong with a request, before anything is done for it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from banditmesh.runtime.errors import InvalidArgument, NotFound
from services.crs_engine.pipeline.batch import SelectionRequest

MAX_USER_ID_BYTES: Final = 128
MAX_CONTEXT: Final = 32
MAX_BATCH: Final = 512
MAX_COUNT: Final = 50
DEFAULT_COUNT: Final = 10


class Request(Protocol):
    """What all requests for a selection have."""

    @property
    def placement(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def context(self) -> Mapping[str, str]: ...


def checked(request: Request, placements: Collection[str], *, at: str = "", count: int = 1) -> SelectionRequest:
    """The valid request that a message stands for.

    Args:
        request: As it came.
        placements: Those that exist.
        at: Path of the request in the call, such as ``requests[3].``; put before the field's name.
        count: How many contents are wanted.

    Raises:
        InvalidArgument: The user id is empty or too long, or the context too large.
        NotFound: There is no such placement.
    """
    placement, user_id = request.placement, request.user_id
    if placement not in placements:
        raise unknown_placement(placement, placements, f"{at}placement")
    if not user_id:
        raise InvalidArgument(
            "the user id is empty", field=f"{at}user_id", hint="name the user that the content is for"
        )
    # A character has up to 4 bytes: most ids need not be encoded to be measured.
    if 4 * len(user_id) > MAX_USER_ID_BYTES and (size := len(user_id.encode())) > MAX_USER_ID_BYTES:
        raise InvalidArgument(
            f"the user id has {size} bytes, allowed are {MAX_USER_ID_BYTES}",
            field=f"{at}user_id",
            value=user_id,
            hint="hash longer ids",
        )
    context = request.context  # once: protobuf makes an object for it each time
    if len(context) > MAX_CONTEXT:
        raise InvalidArgument(
            f"the context has {len(context)} entries, allowed are {MAX_CONTEXT}",
            field=f"{at}context",
            hint="send only what the placement's features name",
        )
    return SelectionRequest(placement, user_id, context, count)


def checked_count(count: int) -> int:
    """How many contents a ranked list may have. Raises InvalidArgument."""
    if count > MAX_COUNT:
        raise InvalidArgument(f"at most {MAX_COUNT} contents can be asked for", field="count", value=count)
    return count or DEFAULT_COUNT


def check_batch(size: int) -> None:
    """Raises InvalidArgument."""
    if not 1 <= size <= MAX_BATCH:
        raise InvalidArgument(
            f"a batch has 1 to {MAX_BATCH} requests",
            field="requests",
            value=size,
            hint="split a larger one into several calls",
        )


def unknown_placement(name: str, placements: Collection[str], field: str) -> NotFound:
    """The error for a placement that does not exist."""
    close = difflib.get_close_matches(name, placements, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return NotFound(
        "there is no such placement",
        field=field,
        value=name,
        hint=f"{hint}mesh.yaml has: {', '.join(sorted(placements))}",
    )
