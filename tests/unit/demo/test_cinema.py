"""The cinema's demo: who comes as a newcomer, what the past has left, and what its verdict is made of."""

from __future__ import annotations

import string

import numpy as np
import pytest
from rich.console import Console

from banditmesh.demo.cinema import BLEND, MESH, POPULAR, Examples, Seen, _counted, _verdict, newcomers
from banditmesh.demo.movielens import Ratings
from banditmesh.runtime.mesh import parse_mesh


def ratings() -> Ratings:
    user = np.repeat(np.arange(10), 4).astype(np.int32)
    item = np.tile(np.arange(4), 10).astype(np.int32)
    likes = np.where(item == 0, 5.0, 2.0).astype(np.float32)
    return Ratings([f"u{n}" for n in range(10)], list("abcd"), user, item, likes, {}, {}, "")


def test_newcomers_are_those_who_came_last_and_counters_begin_with_the_share_that_liked() -> None:
    given = ratings()
    new = newcomers(given)
    assert new.tolist() == [False] * 7 + [True] * 3
    past = ~new[given.user] & (given.rating >= 4)
    counted = _counted(given, past, 7)
    assert counted.rewards.reshape(4, -1).mean(axis=1).tolist() == [1.0, 0.0, 0.0, 0.0]


def seen(blend: int, popular: int, *, broken: int = 0) -> Seen:
    found = Seen(lists=40, broken=broken)
    for variant, clicks in ((BLEND, blend), (POPULAR, popular)):
        for n in range(20):
            found.clicks[variant][f"{variant}{n}"] = [(clicks + n % 2, 10)]
    return found


@pytest.mark.parametrize(
    ("what", "hits", "good"),
    [
        (seen(5, 2), 10.0, True),
        (seen(2, 2), 10.0, False),
        (seen(5, 2, broken=1), 10.0, False),
        (seen(5, 2), 0.0, False),
    ],
)
def test_the_verdict_is_good_only_if_every_promise_was_kept(what: Seen, hits: float, good: bool) -> None:
    console = Console(file=None, quiet=True)
    assert _verdict(console, what, Examples(), {"hit": hits, "absent": 20.0}, None) is good


def test_the_mesh_of_the_demo_is_valid() -> None:
    mesh = parse_mesh(string.Template(MESH.read_text()).substitute(PROVIDER="dns:///films:50051"))
    assert mesh.remembers() == 50
