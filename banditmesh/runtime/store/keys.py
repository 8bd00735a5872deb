"""What a key may look like, the same for both stores, so that what works on a laptop works in a bucket."""

from __future__ import annotations

from banditmesh.runtime.errors import InvalidArgument

LONGEST_KEY_BYTES = 512
"""S3 allows 1024 with the store's prefix, a file system 4096 with the folder."""


def valid_key(key: str) -> str:
    """The key. Raises InvalidArgument when it is empty, too long, absolute, or has an empty, dotted or unprintable
    segment.
    """
    reason = _reason(key)
    if reason is not None:
        raise InvalidArgument(
            f"not a valid object key: {reason}", field="key", value=key, hint="keys look like models/home/current.json"
        )
    return key


def valid_prefix(prefix: str) -> str:
    """The prefix, which may be empty, end with a slash, or end within a segment. Raises InvalidArgument."""
    if prefix:
        valid_key(prefix.removesuffix("/"))
    return prefix


def _reason(key: str) -> str | None:
    if not key:
        return "it is empty"
    if len(key.encode(errors="replace")) > LONGEST_KEY_BYTES:
        return f"it is longer than {LONGEST_KEY_BYTES} bytes"
    if key.startswith("/"):
        return "it is absolute"
    if not key.isprintable() or "\\" in key:
        return "it has a backslash or an unprintable character"
    segments = key.split("/")
    if "" in segments:
        return "it has an empty segment"
    if any(segment.startswith(".") for segment in segments):  # `..`, and the file store's own files
        return "a segment begins with a dot"
    return None
