"""Packed values: what is written is read, by one and by many, and what is broken is nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.runtime import packing

KEYS = st.lists(st.integers(0, 2**64 - 1), max_size=40)


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
