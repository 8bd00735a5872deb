"""An older release: one that does not know a kind of reaction."""

from __future__ import annotations

from banditmesh import reactions


def prepare(kind: str) -> None:
    """Forget a kind, in this process."""
    assert isinstance(reactions.KINDS, dict)
    reactions.KINDS.pop(kind)
