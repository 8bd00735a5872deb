"""User records: each section is read as it was written, by one and by many, by older releases and newer ones."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.runtime import packing
from banditmesh.runtime.user_record import (
    CLICKS,
    DAY_S,
    EVENT,
    MUTES,
    SHOWN,
    SHOWN_SERVICES,
    TARGETS,
    TASTE,
    BadRecord,
    Position,
    Section,
    UserRecord,
    dwell_s,
)
from banditmesh.runtime.user_records import STATE_FEATURES, UserRecords, shows_within

NOON_S = 20_000 * DAY_S + DAY_S // 2
LOG = 5


def clicked(*contents: int, record: UserRecord | None = None) -> UserRecord:
    """A record after clicks at 0 s, 1 s, …"""
    record = UserRecord.empty() if record is None else record
    for time_s, content in enumerate(contents):
        record = record.counted(feedback=1, clicks=1).remembered(CLICKS, time_s, content, 1, 1)
    return record


def shown(*times: tuple[float, int], service: int = 1) -> UserRecord:
    """A record after impressions at times in seconds, of contents."""
    record = UserRecord.empty()
    for time_s, content in times:
        record = record.shown(int(time_s), content, service)
    return record


def test_a_record_is_read_as_it_was_written() -> None:
    record = shown((NOON_S, 1), (NOON_S, 2)).moved(Position("shown", LOG, 9)).moved(Position("reactions", LOG, 4))
    read = UserRecord.unpack(clicked(7, 8, record=record).pack())
    assert [read.applied(stream, LOG) for stream in ("reactions", "shown")] == [4, 9]
    assert [read.count(name) for name in ("feedback", "clicks", "mutes", "shown")] == [2, 2, 0, 2]
    assert read.entries(CLICKS)["content"].tolist() == [8, 7]
    assert read.entries(SHOWN)["content"].tolist() == [2, 1]
    assert len(read.entries(MUTES)) == 0


def test_the_bytes_of_a_record_stay_what_they_are() -> None:
    record = clicked(2).moved(Position("reactions", 3, 4)).shown(NOON_S, 5, 6)
    assert record.pack().hex() == (
        "02050000000000b5" "01010d00" "02010f00" "03011c00" "06010e00" "07010c00"
        "010300000004000000000000000101000000020100000005010000000000000002000000000000000100000000000000"
        "01000000000000000500000000000000204e010000000600000000000000204e0100"
    )  # fmt: skip


def test_the_newest_are_remembered_and_all_are_counted() -> None:
    record = clicked(*range(CLICKS.most + 5))
    assert record.entries(CLICKS)["content"].tolist() == list(range(CLICKS.most + 4, 4, -1))
    assert record.count("clicks") == CLICKS.most + 5
    contents = shown(*((NOON_S, content) for content in range(SHOWN.most + 5))).entries(SHOWN)["content"]
    assert contents.tolist() == list(range(SHOWN.most + 4, 4, -1))


def test_an_offset_of_another_log_means_nothing() -> None:
    record = UserRecord.empty().moved(Position("reactions", LOG, 7))
    assert (record.applied("reactions", LOG), record.applied("reactions", LOG + 1)) == (7, -1)
    assert record.applied("shown", LOG) == -1
    anew = record.moved(Position("reactions", LOG + 1, 2))
    assert (anew.applied("reactions", LOG), anew.applied("reactions", LOG + 1)) == (-1, 2)


def test_impressions_are_counted_by_utc_day_for_eight_days() -> None:
    record = shown((NOON_S - 7 * DAY_S, 1), (NOON_S - DAY_S, 1), (NOON_S - DAY_S, 1), (NOON_S, 1))
    seen = record.entries(SHOWN)
    within = [int(shows_within(seen, days, NOON_S)[0]) for days in (1, 2, 7, 8)]
    assert within == [1, 3, 3, 4]
    assert [int(shows_within(seen, 2, NOON_S + days * DAY_S)[0]) for days in (1, 2, 9)] == [1, 0, 0]


def test_an_impression_that_comes_after_a_newer_one_is_counted_on_its_own_day() -> None:
    seen = shown((NOON_S, 1), (NOON_S - 2 * DAY_S, 1), (NOON_S - 99 * DAY_S, 1)).entries(SHOWN)
    assert [int(shows_within(seen, days, NOON_S)[0]) for days in (1, 2, 3, 8)] == [1, 1, 2, 2]


def test_a_day_counts_to_fifteen_and_the_days_beside_it_are_not_touched() -> None:
    seen = shown((NOON_S - DAY_S, 1), *[(NOON_S, 1)] * 40).entries(SHOWN)
    assert [int(shows_within(seen, days, NOON_S)[0]) for days in (1, 2)] == [15, 16]


def test_services_are_counted_today() -> None:
    record = shown((NOON_S - DAY_S, 1), (NOON_S, 2), (NOON_S, 3)).shown(NOON_S, 4, 2)
    services = record.entries(SHOWN_SERVICES)
    assert dict(zip(services["service"].tolist(), services["count"].tolist(), strict=True)) == {1: 2, 2: 1}
    records = UserRecords([None, record.pack()])
    assert records.shown_today(NOON_S).tolist() == [0, 3]
    assert records.shown_today(NOON_S + DAY_S).tolist() == [0, 0]
    assert records.shown.tolist() == [0, 4]


def test_records_of_many_users_are_read_as_each_alone() -> None:
    muted = clicked(5).counted(feedback=1, mutes=1).remembered(MUTES, 3, 9, 1, 1)
    values = [clicked(1, 2).pack(), None, UserRecord.empty().pack(), muted.pack(), shown((NOON_S, 4)).pack()]
    records = UserRecords(values)
    assert records.feedback.tolist() == [2, 0, 0, 2, 0]
    assert (records.clicks.tolist(), records.mutes.tolist()) == ([2, 0, 0, 1, 0], [0, 0, 0, 1, 0])
    assert (records.click_owners.tolist(), records.click_events["content"].tolist()) == ([0, 0, 3], [2, 1, 5])
    assert (records.mute_owners.tolist(), records.mute_events["content"].tolist()) == ([3], [9])
    assert (records.shown_owners.tolist(), records.shown_contents["content"].tolist()) == ([4], [4])
    assert len(UserRecords([]).click_events) == 0


def test_every_state_feature_is_one_number_a_user() -> None:
    records = UserRecords([clicked(1).pack(), None])
    for name, feature in STATE_FEATURES.items():
        assert feature(records, NOON_S).shape == (2,), name


# --- other releases ---

NEWER = Section("of_tomorrow", 200, 1, np.dtype([("a", "<u2")]), 9)


def of_tomorrow(record: UserRecord) -> UserRecord:
    """The record after a newer release has written a section of its own, another version of the clicks, a counter."""
    parts = {**record.parts, NEWER.number: (1, b"\x01\x02\x03"), CLICKS.number: (CLICKS.version + 1, b"whatever it is")}
    counts = record.parts[2][1] + struct.pack("<BI", 250, 77)
    return UserRecord({**parts, 2: (1, counts)})


def test_what_a_newer_release_has_written_is_kept_untouched_and_passed_over() -> None:
    record = UserRecord.unpack(of_tomorrow(clicked(1)).pack())
    assert len(record.entries(CLICKS)) == 0
    changed = UserRecord.unpack(clicked(2, record=record).shown(NOON_S, 1, 1).pack())
    assert changed.parts[NEWER.number] == (1, b"\x01\x02\x03")
    assert changed.parts[CLICKS.number] == (CLICKS.version + 1, b"whatever it is")
    assert struct.pack("<BI", 250, 77) in changed.parts[2][1]
    assert changed.count("clicks") == 2
    records = UserRecords([record.pack(), clicked(3).pack()])
    assert (records.click_owners.tolist(), records.clicks.tolist()) == ([1], [1, 1])


def old_state(offset: int = 7, clicks: int = 2, mutes: int = 1) -> bytes:
    """A user's value as it was before there were sections."""
    events = np.zeros(clicks + mutes, EVENT)
    events["content"] = np.arange(1, clicks + mutes + 1)
    return struct.pack("<qIIIHH", offset, clicks + mutes, clicks, mutes, clicks, mutes) + events.tobytes()


def test_a_value_from_before_there_were_sections_is_read_and_written_as_a_record() -> None:
    for value in (old_state(), UserRecord.unpack(old_state()).pack()):
        record = UserRecord.unpack(value)
        assert [record.count(name) for name in ("feedback", "clicks", "mutes", "shown")] == [3, 2, 1, 0]
        assert record.applied("reactions", LOG) == 7
        assert record.applied("shown", LOG) == -1
        records = UserRecords([None, value])
        assert records.click_events["content"].tolist() == [1, 2]
        assert records.mute_owners.tolist() == [1]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"short",
        old_state()[:-1],
        old_state() + b"\x00",
        clicked(1).pack()[:-1],
        clicked(1).pack() + b"\x00",
        clicked(1).pack()[:10],
        b"\x03" + clicked(1).pack()[1:],
    ],
)
def test_a_broken_value_is_refused_by_its_writer_and_hurts_no_other_user(broken: bytes) -> None:
    with pytest.raises(BadRecord):
        UserRecord.unpack(broken)
    records = UserRecords([broken, clicked(1).pack()])
    assert records.feedback.tolist() == [0, 1]
    assert records.click_owners.tolist() == [1]


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_no_value_whatever_breaks_a_batch(values: list[bytes]) -> None:
    marked = [value[:7] + b"\xb5" + value[8:] for value in values]
    records = UserRecords([*values, *marked, clicked(1).pack()])
    assert len(records.feedback) == len(records)
    assert records.click_owners[-1] == len(records) - 1


def test_thirty_candidates_of_five_services_with_profile_and_a_full_record_fit_into_a_kibibyte() -> None:
    candidates = 5 * len(packing.pack_candidates(1, np.arange(6, dtype=np.uint64)))
    profile = len(
        packing.pack_profile(1, {"gender": "f", "age_band": "20s", "country": "jp", "used_services": ["a"] * 5})
    )
    record = clicked(1, 2, 3).moved(Position("reactions", LOG, 4)).moved(Position("shown", LOG, 4))
    for impression in range(2 * SHOWN.most):
        record = record.shown(NOON_S, impression, impression % 5)
    assert candidates + profile + len(record.pack()) <= 1024


def test_what_was_done_with_a_content_is_one_entry_and_its_dwell_adds_up() -> None:
    record = clicked(1, 2)
    for kind, amount, content in (("dwell", 30.0, 3), ("click", 1.0, 1), ("dwell", 60.0, 3), ("target", 1.0, 3)):
        record = record.tasted(kind, amount, 9, content, 5)
    assert [(int(e["content"]), int(e["did"])) for e in record.entries(TASTE)] == [(3, 4 | 2), (1, 1), (2, 1)]
    assert dwell_s(int(record.entries(TASTE)[0]["dwell"])) == pytest.approx(90, rel=0.05)
    assert len(record.entries(CLICKS)) == 0
    owners, contents, times_s = UserRecords([record.pack(), clicked(8).pack()]).clicked()
    assert sorted(zip(owners.tolist(), contents.tolist(), times_s.tolist(), strict=True)) == [
        (0, 1, 9),
        (0, 2, 1),
        (1, 8, 0),
    ]


def test_thirty_contents_and_everything_else_at_its_most_fit_into_a_kibibyte() -> None:
    record = clicked(*range(40))
    for name in ("mutes", "targets", "dwell_s"):
        record = record.counted(**{name: 1})
    for at in range(40):
        record = record.remembered(MUTES, at, at, 1, 1).remembered(TARGETS, at, at, 1, 1)
    for at in range(40):
        record = record.tasted("click", 1.0, at, at, 30)
        record = record.shown(NOON_S, at, at).moved(Position("shown", 1, at)).moved(Position("reactions", 1, at))
        assert at == 0 or len(record.pack()) <= 1024
    assert len(record.entries(TASTE)) == 30
    assert record.entries(SHOWN)["content"].tolist()[0] == 39  # the newest is the last to go


def test_a_hundred_contents_are_remembered_where_they_are_wanted() -> None:
    record = UserRecord.empty()
    for at in range(150):
        record = record.tasted("click", 1.0, at, at, 100)
    assert record.entries(TASTE)["content"].tolist() == list(range(149, 49, -1))
