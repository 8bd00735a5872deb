"""By what second copies of impressions are known."""

from __future__ import annotations

from services.joiner.shown import MOST_REMEMBERED, REMEMBERED_MS, Recent


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_second_copy_is_known_for_as_long_as_is_said_whenever_the_first_came() -> None:
    for first_ms in range(0, 2 * REMEMBERED_MS, REMEMBERED_MS // 4):
        recent = Recent()
        for time_ms in range(0, first_ms, 1000):
            recent.add(identity(time_ms), time_ms)
        assert recent.add(b"a", first_ms)
        for time_ms in range(first_ms, first_ms + REMEMBERED_MS, 1000):
            recent.add(identity(time_ms), time_ms)
        assert not recent.add(b"a", first_ms + REMEMBERED_MS - 1)


def test_what_is_remembered_depends_on_the_traffic_and_not_on_the_uptime() -> None:
    recent, held = Recent(), []
    for number in range(2000):  # one a second
        recent.add(identity(number), 100 * number * 10)
        held.append(len(recent))
    assert max(held[1000:]) == max(held) <= 2 * REMEMBERED_MS // 1000 + 1


def test_traffic_of_any_speed_is_held_within_bounds() -> None:
    recent = Recent()
    for number in range(4 * MOST_REMEMBERED):
        recent.add(identity(number), 0)
    assert MOST_REMEMBERED <= len(recent) <= 2 * MOST_REMEMBERED
    assert not recent.add(identity(3 * MOST_REMEMBERED + 1), 0)
