"""Texts are measured before anything else is done with them."""

from __future__ import annotations

import difflib

import pytest

from banditmesh.bandits import hashing
from banditmesh.runtime.errors import InvalidArgument, NotFound, to_status
from banditmesh.runtime.limits import check_text, closest, fits


@pytest.mark.parametrize(("text", "most", "expected"), [("é" * 2, 4, True), ("é" * 2, 3, False), ("", 0, True)])
def test_bytes_count_and_not_characters(text: str, most: int, expected: bool) -> None:
    assert fits(text, most) is expected


def test_an_empty_text_is_refused_unless_it_may_be_left_out() -> None:
    with pytest.raises(InvalidArgument, match="user_id is empty"):
        check_text("requests[3].user_id", "", 128)
    check_text("placement", "", 64, optional=True)


def test_what_is_too_long_for_a_name_is_not_searched_for_among_the_names() -> None:
    assert closest("haed", ["head", "foot"]) == "head"
    assert closest("head" * 17, ["head" * 16]) is None


def test_few_names_are_compared_letter_by_letter_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"home-feed-{number}-{'germany-android' * 3}" for number in range(2000)]
    compared = []
    matches = difflib.get_close_matches
    monkeypatch.setattr(
        difflib, "get_close_matches", lambda name, known, n: compared.extend(known) or matches(name, known, n=n)
    )

    assert closest(names[1234].replace("1234-ger", "1234-gre"), names) == names[1234]
    assert len(compared) < 10


def test_an_error_about_a_huge_value_is_small() -> None:
    error = NotFound("no such placement", field="placement", value="x" * 4_000_000)
    assert len(str(error)) < 300
    assert len(to_status(error).SerializeToString()) < 1000


def test_hashes_of_long_texts_are_the_same_and_are_not_remembered() -> None:
    before = hashing._remembered.cache_info().currsize
    texts = [f"{number}" * hashing.LONGEST_REMEMBERED for number in range(10, 20)]
    assert [hashing.key64(text) for text in texts] == [hashing._key64(text) for text in texts]
    assert hashing._remembered.cache_info().currsize == before
