from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from banditmesh.bandits.batch import Examples
from banditmesh.decisions.view import View
from banditmesh.fit.passes import Part, Passes
from banditmesh.runtime.errors import InvalidArgument, ResourceExhausted

ROWS, EXAMPLES = 3000, 3300


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Sorted by reward; rows of one to three features, one in ten of full information with two candidates."""
    path = tmp_path / "log"
    with path.open("w") as file:
        for n in range(ROWS):
            context = {f"f{at}": n / 7 for at in range(1 + n % 3)}
            reward = float(n >= ROWS // 2)
            candidates = [{"id": f"{n}.{at}", "reward": reward} for at in range(1 + (n % 10 == 0))]
            file.write(json.dumps({"t": n, "context": context, "candidates": candidates}) + "\n")
    return path


def passes(log: Path, **bounds: int) -> Passes:
    return Passes(log, View(), **bounds)


def told(examples: Iterable[Examples]) -> list[tuple[float, ...]]:
    """All that the examples say, one by one."""
    return [
        (
            *(int(one.contents[at]), int(one.logics[at]), int(one.services[at]), float(one.times_s[at])),
            *(float(one.rewards[at]), float(one.propensities[at]), bool(one.clicked[at])),
            *one.features.take(np.array([at])).ids.tolist(),
            *one.features.take(np.array([at])).values.tolist(),
        )
        for one in examples
        for at in range(len(one))
    ]


def test_a_later_pass_says_what_the_first_one_did(log: Path) -> None:
    for memory_bytes in (0, 50_000, 1 << 30):
        over = passes(log, memory_bytes=memory_bytes)
        first = told(over.in_order())
        assert len(first) == EXAMPLES
        assert told(over.in_order()) == first


@pytest.mark.parametrize("window_bytes", [1, 40_000, 1 << 30])
def test_a_pass_is_the_same_from_memory_and_from_the_file(log: Path, window_bytes: int) -> None:
    mixed = [
        [told(over.shuffled(rng)) for _ in range(2)]
        for over in (passes(log, memory_bytes=size, window_bytes=window_bytes) for size in (0, 1 << 30))
        for rng in (np.random.default_rng(5),)
    ]
    assert mixed[0] == mixed[1]
    assert mixed[0][0] != mixed[0][1]
    assert sorted(mixed[0][0]) == sorted(mixed[0][1]) == sorted(told(passes(log).in_order()))


def test_windows_of_a_sorted_log_hold_rewards_from_all_over_it(log: Path) -> None:
    over = passes(log, memory_bytes=0, window_bytes=80_000)
    means = [float(one.rewards.mean()) for one in over.shuffled(np.random.default_rng(0)) if len(one) > 500]
    assert len(means) >= 3
    assert all(0.1 < mean < 0.9 for mean in means)


def test_the_parts_of_a_log_are_read_once_and_together_are_the_log(log: Path) -> None:
    over = passes(log, memory_bytes=0)
    rest = told(over.only(Part.REST).in_order())
    log.unlink()
    held_out, whole = told(over.only(Part.HELD_OUT).in_order()), told(over.in_order())
    assert sorted([*rest, *held_out]) == sorted(whole)
    assert 200 < len(held_out) < 400
    for part in Part:
        examples = over.only(part).examples(0)
        assert examples == len(told(over.only(part).shuffled(np.random.default_rng(0))))


def test_the_held_out_rows_are_those_that_their_numbers_say(log: Path) -> None:
    times = {one[3] for one in told(passes(log).only(Part.HELD_OUT).in_order())}
    assert times == {float(line - 1) for line in range(1, ROWS + 1) if Part.HELD_OUT.has(line)}


def test_the_number_of_examples_is_known_afterwards_and_estimated_before(log: Path) -> None:
    over = passes(log)
    assert over.examples(0) is None
    estimates = []
    done = 0
    for one in over.in_order():
        done += len(one)
        estimates.append(over.examples(done))
    assert over.examples(0) == done == EXAMPLES
    assert all(estimate is not None and estimate >= done / 2 for estimate in estimates)


def test_nothing_is_kept_where_no_pass_follows(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(log.parent / "nowhere"))
    assert len(told(passes(log, memory_bytes=0).in_order(keep=False))) == EXAMPLES
    with pytest.raises(ResourceExhausted, match="TMPDIR"):
        told(passes(log, memory_bytes=0).in_order())


def test_what_is_kept_leaves_nothing_in_the_temporary_folder(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = log.parent / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    over = passes(log, memory_bytes=0)
    told(over.in_order())
    assert list(folder.iterdir()) == []


def test_a_pass_that_was_broken_off_begins_anew(log: Path) -> None:
    over = passes(log)
    next(over.in_order())
    assert len(told(over.in_order())) == EXAMPLES


def test_a_log_without_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InvalidArgument, match="empty has no rows"):
        told(passes(tmp_path / "empty").in_order())
