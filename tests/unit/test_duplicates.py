"""A name that stands twice is found in one walk."""

from __future__ import annotations

import pytest

from banditmesh.duplicates import first_twice
from banditmesh.json_keys import Decoder


class Compared(str):
    """A name that counts how often it is compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    ("names", "expected"), [([], None), (["a", "b"], None), (["a", "b", "b", "a"], "b"), (["", ""], "")]
)
def test_the_first_name_that_stands_twice(names: list[str], expected: str | None) -> None:
    assert first_twice(names) == expected


def test_names_are_not_compared_each_with_each() -> None:
    names = [Compared(number) for number in range(3000)]
    assert first_twice([*names, Compared(2999)]) == "2999"
    assert Compared.times < 10 * len(names)


def test_a_key_that_stands_twice_among_very_many_is_found() -> None:
    decoder = Decoder()
    decoder.decode("{" + ",".join(f'"{number}":1' for number in range(100_000)) + ',"99999":1}')
    assert decoder.twice == "99999"
