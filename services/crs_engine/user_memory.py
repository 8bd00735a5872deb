"""What this process has read of users lately: what a selection goes by while Redis is away.

Without it an outage would bring back what a user has muted. It holds what the last selection of each user read, so it
is as old as that; of users who were never here it knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

USERS_KEPT: Final = 10_000
"""The last ones at least, and twice as many at most; at some 0.7 KB each."""

Remembered = tuple[bytes | None, bytes | None]
"""The values of a user's profile and record."""


class UserMemory:
    """The users who were here last, in two generations: when the younger one is full it becomes the older one, whose
    users are forgotten. So a whole batch is noted at once, and no user needs a place of his own in an order."""

    def __init__(self, size: int = USERS_KEPT) -> None:
        self._size = size
        self._younger: dict[str, Remembered] = {}
        self._older: dict[str, Remembered] = {}

    def remember(self, user_ids: Iterable[str], rows: Sequence[Sequence[bytes | None]]) -> None:
        """Take note of what Redis says of users.

        Args:
            user_ids: Whose rows these are.
            rows: The values of each; the last two are profile and record.
        """
        self._younger.update(zip(user_ids, [(row[-2], row[-1]) for row in rows], strict=True))
        if len(self._younger) >= self._size:
            self._older, self._younger = self._younger, {}

    def recall(self, user_id: str) -> Remembered:
        """What Redis said of the user last; two times None when that is not known (any more)."""
        return self._younger.get(user_id) or self._older.get(user_id, (None, None))
