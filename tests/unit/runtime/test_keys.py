"""Keys of one user and of one join partition must lie on one node of a cluster, whatever the user is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.cluster import key_slot

from banditmesh.runtime import keys


@given(st.text(min_size=1))
def test_all_keys_of_a_user_share_a_slot(user: str) -> None:
    tag = keys.user_tag(user)
    wanted = keys.of_user(tag, keys.around_tag([keys.candidates_tail("weather/today", slot) for slot in (0, 1)], 1))
    assert len({key_slot(key.encode()) for key in wanted}) == 1


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_users_never_share_a_key(one: str, other: str) -> None:
    assert (keys.user_tag(one) == keys.user_tag(other)) == (one == other)


def test_the_keys_that_the_engine_reads_are_those_that_the_importer_and_the_joiner_write() -> None:
    tag = keys.user_tag("ann")
    assert keys.of_user(tag, keys.around_tag([keys.candidates_tail("weather/today", 1)], 0)) == [
        keys.candidates(tag, "weather/today", 1),
        keys.profile(tag, 0),
        keys.state(tag),
    ]


@pytest.mark.parametrize(
    "key",
    [
        keys.join_progress(3),
        keys.join_progress(3, "marks"),
        keys.reactions(3, b"i" * 16),
        keys.closed(3, b"i" * 16),
        keys.unmatched(3),
    ],
)
def test_keys_of_a_join_partition_share_a_slot(key: str) -> None:
    assert key_slot(key.encode()) == key_slot(b"p3")
