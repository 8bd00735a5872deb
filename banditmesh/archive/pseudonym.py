"""What stands for a user in the archive."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from functools import lru_cache

from banditmesh.runtime.errors import ConfigurationError

LEAST_KEY_BYTES = 16
_BYTES = 15
"""Two of 100 million users share a pseudonym with a probability of 4e-21."""


def pseudonyms(key: str) -> Callable[[str], str]:
    """The keyed hash (HMAC-SHA256, 20 characters) of a user id: the same for the same user and key, and without the
    key nobody can tell whose it is, or try.

    Args:
        key: Hexadecimal, at least 16 bytes.

    Raises:
        ConfigurationError: It is no such key.
    """
    try:
        secret = bytes.fromhex(key)
    except ValueError:
        secret = b""
    if len(secret) < LEAST_KEY_BYTES:
        raise ConfigurationError(
            f"BANDITMESH_ARCHIVE_KEY must be at least {LEAST_KEY_BYTES} bytes in hexadecimal",
            hint="make one with: openssl rand -hex 32",
        )

    @lru_cache(maxsize=65_536)
    def pseudonym(user: str) -> str:
        digest = hmac.digest(secret, user.encode(), "sha256")
        return base64.urlsafe_b64encode(digest[:_BYTES]).decode()

    return pseudonym
