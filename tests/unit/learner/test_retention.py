"""Which versions of a model may go."""

from __future__ import annotations

import pytest

from services.learner.retention import superfluous


@pytest.mark.parametrize(
    ("repeats", "keep", "gone"),
    [
        ({}, 2, []),
        ({1: 0}, 2, []),
        ({1: 0, 2: 0, 3: 0}, 2, [1]),
        # Rollbacks do not count; the current one stays with what it repeats and what it came after.
        ({1: 0, 2: 0, 3: 0, 4: 1}, 2, []),
        ({1: 0, 2: 0, 3: 2, 4: 2, 5: 2}, 2, [3]),
        ({1: 0, 2: 0, 3: 1, 4: 0, 5: 0}, 2, []),
        ({1: 0, 2: 1, 3: 0, 4: 1, 5: 0, 6: 0, 7: 0}, 2, [2, 5]),
    ],
)
def test_genuine_versions_stay_however_many_rollbacks_follow(
    repeats: dict[int, int], keep: int, gone: list[int]
) -> None:
    assert superfluous(repeats, keep) == gone
