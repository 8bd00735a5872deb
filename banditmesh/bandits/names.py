"""Names of fields and attributes, and the texts that rules compare with their values."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator

MAX_TEXT_BYTES: Final = 256


def _printed_text(value: str) -> str:
    """What nobody can see in a file is a slip: an empty word, white space around one, a control character."""
    if not 1 <= len(value.encode(errors="replace")) <= MAX_TEXT_BYTES:
        raise ValueError(f"must have 1 to {MAX_TEXT_BYTES} bytes of UTF-8")
    if not value.isprintable() or value != value.strip():
        raise ValueError(f"{value!r} has white space around it, or characters that cannot be seen")
    return value


PrintedText = Annotated[str, AfterValidator(_printed_text)]
"""1 to 256 bytes of UTF-8, printable, without white space around it."""
