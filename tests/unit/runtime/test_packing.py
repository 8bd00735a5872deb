"""Packed values: what is written is read, by one and by many, and what is broken is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.runtime import packing
from banditmesh.runtime.packing import UserState

KEYS = st.lists(st.integers(0, 2**64 - 1), max_size=40)


def event(time_s: int, content: int = 1) -> np.ndarray[tuple[()], np.dtype[np.void]]:
    made = np.zeros((), packing.EVENT)
    made["time_s"], made["content"] = time_s, content
    return made


def state_of(*kinds: str) -> UserState:
    """A state after these reactions, at 0 s, 1 s, …"""
    state = UserState.empty()
    for offset, kind in enumerate(kinds):
        state = state.apply(offset, kind, event(offset, offset))
    return state


@given(st.integers(0, 2**32 - 1), KEYS)
def test_candidates_are_read_as_they_were_written(version: int, contents: list[int]) -> None:
    value = packing.pack_candidates(version, np.array(contents, np.uint64))
    found, keys, scores = packing.unpack_candidates(value)
    assert (found, keys.tolist(), scores.tolist()) == (version, contents, [0.0] * len(contents))
    assert packing.candidate_count(value) == len(contents)


@given(st.lists(KEYS, max_size=8))
def test_many_values_are_read_as_each_alone(several: list[list[int]]) -> None:
    values = [packing.pack_candidates(3, np.array(contents, np.uint64)) for contents in several]
    counts, keys = packing.unpack_candidate_batch(values, np.full(len(values), 3, np.uint32))
    assert counts.tolist() == [len(contents) for contents in several]
    assert keys.tolist() == [key for contents in several for key in contents]


def test_what_is_missing_torn_or_of_another_version_holds_no_candidates() -> None:
    one = np.array([7], np.uint64)
    values = [packing.pack_candidates(2, one), None, b"\x02", packing.pack_candidates(1, one), b""]
    counts, keys = packing.unpack_candidate_batch(values, np.full(5, 2, np.uint32))
    assert (counts.tolist(), keys.tolist()) == ([1, 0, 0, 0, 0], [7])


def test_thirty_candidates_of_five_services_with_profile_and_state_fit_into_a_kibibyte() -> None:
    candidates = 5 * len(packing.pack_candidates(1, np.arange(6, dtype=np.uint64)))
    profile = len(
        packing.pack_profile(1, {"gender": "f", "age_band": "20s", "country": "jp", "used_services": ["a"] * 5})
    )
    assert candidates + profile + len(state_of("click", "mute", "click", "click").pack()) < 1024


def test_equal_profiles_are_equal_bytes() -> None:
    assert packing.pack_profile(1, {"a": "x", "b": 2.0}) == packing.pack_profile(1, {"b": 2.0, "a": "x"})


def test_a_profile_is_read_as_it_was_written() -> None:
    profile: packing.Profile = {"age": "20s", "height": 1.7, "used_services": ["weather", "comics"]}
    assert packing.unpack_profile(packing.pack_profile(9, profile)) == (9, profile)


def test_a_content_keeps_its_service() -> None:
    assert packing.unpack_content(packing.pack_content("wétter", b"body")) == ("wétter", b"body")


def test_a_live_pointer_keeps_a_name_with_colons() -> None:
    live = packing.LiveVersion(12, 1, "2026-11-23T00:00")
    assert packing.LiveVersion.unpack(live.pack()) == live


def test_a_reaction_counts_once_however_often_it_is_applied() -> None:
    state = state_of("click", "mute")
    assert state.apply(1, "click", event(9)) is state
    assert (state.feedback, state.clicks, state.mutes) == (2, 1, 1)


@pytest.mark.parametrize(("kind", "most"), [("click", packing.MAX_CLICKS), ("mute", packing.MAX_MUTES)])
def test_the_newest_are_remembered_and_all_are_counted(kind: str, most: int) -> None:
    state = state_of(*[kind] * (most + 5))
    remembered = state.recent_clicks if kind == "click" else state.recent_mutes
    assert remembered["time_s"].tolist() == list(range(most + 4, 4, -1))
    assert state.feedback == most + 5


def test_states_of_many_users_are_read_as_each_alone() -> None:
    several = [state_of("click", "mute", "click"), UserState.empty(), state_of("target"), state_of("mute")]
    states = packing.unpack_states([several[0].pack(), None, several[2].pack(), several[3].pack()])
    assert states.feedback.tolist() == [3, 0, 1, 1]
    assert states.clicks.tolist() == [2, 0, 0, 0]
    assert (states.click_owners.tolist(), states.click_events["content"].tolist()) == ([0, 0], [2, 0])
    assert (states.mute_owners.tolist(), states.mute_events["content"].tolist()) == ([0, 3], [1, 0])


@pytest.mark.parametrize("broken", [b"", b"short", state_of("click").pack()[:-1], state_of("click").pack() + b"\x00"])
def test_a_broken_state_is_an_empty_one_and_hurts_no_other(broken: bytes) -> None:
    states = packing.unpack_states([broken, state_of("click").pack()])
    assert states.feedback.tolist() == [0, 1]
    assert states.click_owners.tolist() == [1]
