"""Where the text model lies among the snapshots: `banditmesh embed fit` publishes it, the importer reads it."""

from __future__ import annotations

from typing import Final

VECTORS: Final = "vectors"
"""In the place of a placement's name."""
TEXT_MODEL: Final = "text"
