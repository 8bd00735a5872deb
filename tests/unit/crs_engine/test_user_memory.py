"""What an outage of Redis is got over with."""

from __future__ import annotations

from services.crs_engine.user_memory import UserMemory


def test_it_holds_what_was_read_last_of_the_users_who_were_here_last() -> None:
    memory = UserMemory(size=2)
    memory.remember(["ann"], [[b"candidates", b"profile", b"old"]])
    memory.remember(["ann"], [[b"candidates", None, b"new"]])
    assert memory.recall("ann") == (None, b"new")
    memory.remember(["bob", "eve"], [[None, b"record"], [b"p", None]])
    memory.remember(["ann"], [[None, b"newest"]])
    assert memory.recall("ann") == (None, b"newest")
    assert memory.recall("eve") == (b"p", None)
    assert memory.recall("stranger") == (None, None)


def test_users_who_were_not_here_for_two_generations_are_forgotten() -> None:
    memory = UserMemory(size=2)
    memory.remember(["ann", "bob"], [[b"p", None], [b"p", None]])
    memory.remember(["eve"], [[b"p", None]])
    assert memory.recall("ann") == (b"p", None)
    memory.remember(["fay"], [[b"p", None]])
    assert memory.recall("ann") == memory.recall("bob") == (None, None)
    assert memory.recall("eve") == memory.recall("fay") == (b"p", None)
