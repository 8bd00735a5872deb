"""Names of fields and attributes, and the texts that rules compare with their values."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from banditmesh.lengths import MAX_NAME_BYTES, MAX_VALUE_BYTES


def _printed(value: str, most_bytes: int) -> str:
    """What nobody can see in a file is a slip: an empty word, white space around one, a control character."""
    if not 1 <= len(value.encode(errors="replace")) <= most_bytes:
        raise ValueError(f"must have 1 to {most_bytes} bytes of UTF-8")
    if not value.isprintable() or value != value.strip():
        raise ValueError(f"{value!r} has white space around it, or characters that cannot be seen")
    return value


def _printed_text(value: str) -> str:
    return _printed(value, MAX_VALUE_BYTES)


def _field_name(value: str) -> str:
    return _printed(value, MAX_NAME_BYTES)


PrintedText = Annotated[str, AfterValidator(_printed_text)]
"""A value: 1 to 256 bytes of UTF-8, printable, without white space around it."""
FieldName = Annotated[str, AfterValidator(_field_name)]
"""A name that a field of profiles, contexts or contents can have: at most 64 bytes, else the same."""
