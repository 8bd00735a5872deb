"""What this process has read of users lately: what a selection goes by while Redis is away.

Without it an outage would bring back what a user has muted. It holds what the last selection of each user read, so it
is as old as that; of users who were never here it knows nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

USERS_KEPT: Final = 10_000
"""At some 0.7 KB each."""

Remembered = tuple[bytes | None, bytes | None]
"""The values of a user's profile and record."""


class UserMemory:
    """The users who were here last."""

    def __init__(self, size: int = USERS_KEPT) -> None:
        self._size = size
        self._users: OrderedDict[str, Remembered] = OrderedDict()

    def remember(self, user_id: str, profile: bytes | None, record: bytes | None) -> None:
        """Take note of what Redis says of a user."""
        users = self._users
        users[user_id] = (profile, record)
        users.move_to_end(user_id)
        if len(users) > self._size:
            users.popitem(last=False)

    def recall(self, user_id: str) -> Remembered:
        """What Redis said of the user last; two times None when that is not known (any more)."""
        return self._users.get(user_id, (None, None))
