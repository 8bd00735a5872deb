"""What is wrong with a request, before anything is done for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Protocol

from banditmesh.lengths import (
    MAX_BATCH,
    MAX_CONTEXT_ENTRIES,
    MAX_CONTEXT_VALUE_BYTES,
    MAX_COUNT,
    MAX_NAME_BYTES,
    MAX_USER_ID_BYTES,
)
from banditmesh.runtime.errors import InvalidArgument, NotFound
from banditmesh.runtime.limits import check_text, closest, fits
from services.crs_engine.pipeline.batch import SelectionRequest

DEFAULT_COUNT: Final = 10


class Request(Protocol):
    """What all requests for a selection have."""

    @property
    def placement(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def context(self) -> Mapping[str, str]: ...


def checked(
    request: Request, placements: Collection[str], *, at: str = "", count: int = 1, hinted: bool = True
) -> SelectionRequest:
    """The valid request that a message stands for.

    Args:
        request: As it came.
        placements: Those that exist.
        at: Path of the request in the call, such as ``requests[3].``; put before the field's name.
        count: How many contents are wanted.
        hinted: Whether a wrong placement is worth a search for what was meant: for one of a batch, since as many as it
            can have would hold up everybody.

    Raises:
        InvalidArgument: The placement or the user id is empty or too long, or the context too large.
        NotFound: There is no such placement.
    """
    placement, user_id = request.placement, request.user_id
    if placement not in placements:
        raise unknown_placement(placement, placements, f"{at}placement", hinted=hinted)
    if not user_id or not fits(user_id, MAX_USER_ID_BYTES):
        hint = "hash longer ids" if user_id else "name the user that the content is for"
        check_text(f"{at}user_id", user_id, MAX_USER_ID_BYTES, hint=hint)
    context = request.context  # once: protobuf makes an object for it each time
    if len(context):
        _check_context(context, at)
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


def _check_context(context: Mapping[str, str], at: str) -> None:
    if len(context) > MAX_CONTEXT_ENTRIES:
        raise InvalidArgument(
            f"the context has {len(context)} entries, allowed are {MAX_CONTEXT_ENTRIES}",
            field=f"{at}context",
            hint="send only what the placement's features name",
        )
    for name, value in context.items():
        if not fits(name, MAX_NAME_BYTES):
            check_text(f"{at}context", name, MAX_NAME_BYTES, hint="send only what the placement's features name")
        if not fits(value, MAX_CONTEXT_VALUE_BYTES):
            check_text(f"{at}context[{name}]", value, MAX_CONTEXT_VALUE_BYTES, hint="send a category, not a text")


def unknown_placement(name: str, placements: Collection[str], field: str, *, hinted: bool = True) -> NotFound:
    """The error for a placement that does not exist; ``hinted``: it says which there are, and which may have been
    meant. Raises InvalidArgument when it is no name at all: empty, or too long for one."""
    check_text(field, name, MAX_NAME_BYTES)
    if not hinted:
        return NotFound("there is no such placement", field=field, value=name)
    close = closest(name, placements)
    hint = f"did you mean {close!r}? " if close is not None else ""
    return NotFound(
        "there is no such placement",
        field=field,
        value=name,
        hint=f"{hint}mesh.yaml has: {', '.join(sorted(placements))}",
    )
