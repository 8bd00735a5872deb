"""What an outage of Redis is got over with."""

from __future__ import annotations

from services.crs_engine.user_memory import UserMemory


def test_it_holds_what_was_read_last_of_the_users_who_were_here_last() -> None:
    memory = UserMemory(size=2)
    memory.remember("ann", b"profile", b"old")
    memory.remember("bob", None, b"record")
    memory.remember("ann", None, b"new")
    memory.remember("eve", b"p", None)
    assert memory.recall("ann") == (None, b"new")
    assert memory.recall("eve") == (b"p", None)
    assert memory.recall("bob") == memory.recall("stranger") == (None, None)
