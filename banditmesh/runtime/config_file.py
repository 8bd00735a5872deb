"""The text of a file of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from banditmesh.runtime.errors import ConfigurationError

MOST_BYTES: Final = 16 << 20


def read_config(path: Path) -> str:
    """What the file says.

    Raises:
        ConfigurationError: It cannot be read, is no UTF-8, or is larger than any configuration (a device has no end).
    """
    try:
        with path.open("rb") as file:
            body = file.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise ConfigurationError(f"{path}: has more than {MOST_BYTES >> 20} MiB: is it the right file?")
        return body.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error}", hint="name the file with --config or BANDITMESH_CONFIG"
        ) from error
