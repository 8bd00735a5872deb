"""Durations: one way to write them, and the old spelling in seconds."""

from __future__ import annotations

import pytest

from banditmesh.bandits.durations import OldSpelling, is_duration, seconds, written
from banditmesh.bandits.errors import InvalidParams
from banditmesh.bandits.registry import POLICIES, model_name, policy_params


@pytest.mark.parametrize(
    ("text", "expected"), [("250ms", 0.25), ("30s", 30.0), ("1.5h", 5400.0), ("7d", 604_800.0), (0, 0.0), ("0", 0.0)]
)
def test_durations_have_units(text: object, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [60, 0.5, True, "60", "1 week", "-3s", "", None, ["1d"]])
def test_what_is_no_duration_is_refused_with_the_way_to_write_it(wrong: object) -> None:
    with pytest.raises(ValueError, match="write it like 250ms, 30s, 10m, 6h or 7d"):
        seconds(wrong)


@pytest.mark.parametrize("wrong", ["0.5ms", "1e-9s", "0.000000001d"])
def test_what_rounds_to_no_millisecond_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is shorter than 1ms"):
        seconds(wrong)


@pytest.mark.parametrize("duration_s", [0.0, 0.05, 0.25, 1.0, 90.0, 5400.0, 86_400.0, 0.001, 1e9, 12.345678901, 1 / 3])
def test_a_written_duration_reads_as_the_same_number(duration_s: float) -> None:
    assert seconds(written(duration_s)) == duration_s


@pytest.mark.parametrize(("duration_s", "text"), [(86_400.0, "1d"), (5400.0, "90m"), (0.05, "50ms"), (0.0, "0")])
def test_a_duration_is_written_in_its_largest_unit(duration_s: float, text: str) -> None:
    assert written(duration_s) == text


@pytest.mark.parametrize(
    ("policy", "old", "new"),
    [
        ("popularity", {"half_life_s": 3600}, {"half_life": "1h"}),
        ("linear", {"retire_after_s": 86_400.0}, {"retire_after": "1d"}),
        ("linucb", {"half_life_s": None}, {"half_life": None}),
    ],
)
def test_the_old_spelling_is_read_with_a_warning_that_names_the_key_and_the_new_one(
    policy: str, old: dict[str, object], new: dict[str, object]
) -> None:
    key, value = next(iter(new.items()))
    with pytest.warns(OldSpelling, match=f"{next(iter(old))}: .* write {key}: {'null' if value is None else value}$"):
        params = policy_params(policy, old)
    assert params == policy_params(policy, new)


def test_both_spellings_at_once_are_refused() -> None:
    with pytest.raises(InvalidParams, match="half_life_s is the old spelling of half_life"):
        policy_params("popularity", {"half_life_s": 60, "half_life": "1m"})


def test_the_parameters_of_a_snapshot_can_be_read_again() -> None:
    for name in POLICIES:
        params = policy_params(name, {"half_life": "90m"} if "half_life" in POLICIES[name].Params.model_fields else {})
        assert policy_params(name, params.model_dump(mode="json")) == params
    assert model_name("popularity", {"half_life": "24h"}) == model_name("popularity", {"half_life": "1d"})


def test_every_parameter_that_is_a_time_is_a_duration() -> None:
    for kind in POLICIES.values():
        for name, field in kind.Params.model_fields.items():
            assert is_duration(field) == (name in {"half_life", "retire_after"}), name
            assert not name.endswith(("_s", "_ms", "_seconds")), name
