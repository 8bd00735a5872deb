"""What this process has read of users lately: what a selection goes by while Redis is away.

Without it an outage would bring back what a user has muted. It holds what the last selection of each user read, so it
is as old as that; of users who were never here it knows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

USERS_KEPT: Final = 10_000
"""The last ones at least, and twice as many at most; at some 0.7 KB each."""


class UserMemory:
    """The users who were here last, in two generations: when the younger one is full it becomes the older one, whose
    users are forgotten. So a whole batch is noted at once, and no user needs a place of his own in an order.

    Profiles and records stand in dictionaries of their own, which hold nothing but text and bytes: the garbage
    collector need not look at any of it.
    """

    def __init__(self, size: int = USERS_KEPT) -> None:
        self._size = size
        self._younger, self._older = _Generation(), _Generation()

    def remember(self, user_ids: Sequence[str], rows: Sequence[Sequence[bytes | None]]) -> None:
        """Take note of what Redis says of users.

        Args:
            user_ids: Whose rows these are.
            rows: The values of each; the last two are profile and record.
        """
        younger = self._younger
        younger.profiles.update(zip(user_ids, [row[-2] for row in rows], strict=True))
        younger.records.update(zip(user_ids, [row[-1] for row in rows], strict=True))
        if len(younger.records) >= self._size:
            self._older, self._younger = younger, _Generation()

    def recall(self, user_id: str) -> tuple[bytes | None, bytes | None]:
        """The values of the user's profile and record as Redis had them last; None when that is not known (any
        more)."""
        known = self._younger if user_id in self._younger.records else self._older
        return known.profiles.get(user_id), known.records.get(user_id)


class _Generation:
    def __init__(self) -> None:
        self.profiles: dict[str, bytes | None] = {}
        self.records: dict[str, bytes | None] = {}
