"""JSON in which a key that stands twice is noticed: Python's reader lets the last one win, silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from banditmesh.duplicates import first_twice


class Decoder:
    """Decodes one text after another, in one thread.

    Attributes:
        twice: The key that stood twice in an object of the last text, at whatever depth; None: none did.
    """

    def __init__(self, parse_constant: Callable[[str], Any] | None = None) -> None:
        """``parse_constant``: what to do with NaN and the infinities; None: they are numbers."""
        self.twice: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=parse_constant)

    def decode(self, text: str) -> Any:
        """Return what the whole text says. Raises ValueError (JSONDecodeError among them) and RecursionError."""
        self.twice = None
        return self._decoder.decode(text)

    def raw_decode(self, text: str) -> tuple[Any, int]:
        """Return what the beginning of the text says, and where it ends. Raises as :meth:`decode`."""
        self.twice = None
        return self._decoder.raw_decode(text)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self.twice = first_twice(name for name, _value in pairs)
        return found
