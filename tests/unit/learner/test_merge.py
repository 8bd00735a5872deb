"""The merge of partitions: one order, whatever the order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.learner.merge import BUCKET_MS, BUFFERED, Cut, Merge, Record

ALL = 10**9


def record(time_ms: int, partition: int, offset: int) -> Record[str]:
    return Record(time_ms, partition, offset, f"{partition}/{offset}")


def names(cut: Cut[str] | None) -> list[list[str | None]]:
    return [] if cut is None else [[each.body for each in bucket] for bucket in cut.buckets]


Lanes = list[list[Record[str]]]


@st.composite
def topics(draw: st.DrawFn) -> Lanes:
    """Records of up to four partitions, in the order of offsets; each ends with the same late time."""
    lanes: Lanes = []
    for partition in range(draw(st.integers(1, 4))):
        times = sorted(draw(st.lists(st.integers(0, 6 * BUCKET_MS), max_size=12)))
        offsets = sorted(draw(st.sets(st.integers(0, 99), min_size=len(times), max_size=len(times))))
        lanes.append([record(time, partition, offset) for time, offset in zip(times, offsets, strict=True)])
        lanes[-1].append(record(20 * BUCKET_MS, partition, 100))
    return lanes


@st.composite
def arrivals(draw: st.DrawFn, lanes: Lanes) -> list[tuple[int, list[Record[str]]]]:
    """The same records in some order of arrival: (partition, what comes together)."""
    waiting = {partition: list(lane) for partition, lane in enumerate(lanes)}
    order: list[tuple[int, list[Record[str]]]] = []
    while any(waiting.values()):
        partition = draw(st.sampled_from([each for each, lane in waiting.items() if lane]))
        n = draw(st.integers(1, len(waiting[partition])))
        order.append((partition, waiting[partition][:n]))
        waiting[partition] = waiting[partition][n:]
    return order


def start(lanes: Sequence[Sequence[Record[str]]]) -> Merge[str]:
    return Merge(dict.fromkeys(range(len(lanes)), 0))


def all_at_once(lanes: Lanes) -> list[list[str | None]]:
    merge = start(lanes)
    for partition, lane in enumerate(lanes):
        merge.add(partition, lane)
    return names(merge.take(ALL))


@given(st.data())
def test_every_order_of_arrival_gives_the_same_buckets(data: st.DataObject) -> None:
    lanes = data.draw(topics())
    merge, buckets = start(lanes), []
    for partition, records in data.draw(arrivals(lanes)):
        merge.add(partition, records)
        while data.draw(st.booleans()) and (cut := merge.take(data.draw(st.integers(1, 5)))):
            assert cut.out_of_order == 0
            buckets += names(cut)
    buckets += names(merge.take(ALL))
    assert buckets == all_at_once(lanes)


@given(st.data())
def test_a_merge_that_starts_at_the_positions_of_a_cut_gives_the_rest(data: st.DataObject) -> None:
    lanes = data.draw(topics())
    merge = start(lanes)
    for partition, lane in enumerate(lanes):
        merge.add(partition, lane)
    cut = merge.take(data.draw(st.integers(1, 10)))
    if cut is None:
        return
    rest = [[each for each in lane if each.offset >= cut.positions[partition]] for partition, lane in enumerate(lanes)]
    assert names(cut) + all_at_once(rest) == all_at_once(lanes)


@given(topics())
def test_the_order_is_time_then_partition_then_offset(lanes: Lanes) -> None:
    merge = start(lanes)
    for partition, lane in enumerate(lanes):
        merge.add(partition, lane)
    cut = merge.take(ALL)
    places = [each[:3] for bucket in cut.buckets for each in bucket] if cut else []
    assert all(one < next_one for one, next_one in pairwise(places))


def test_a_bucket_waits_until_every_partition_is_read_past_its_end() -> None:
    merge: Merge[str] = Merge({0: 0, 1: 0})
    merge.add(0, [record(100, 0, 0), record(5000, 0, 1)])
    assert merge.take(ALL) is None
    merge.add(1, [record(999, 1, 0)])
    assert merge.take(ALL) is None
    merge.add(1, [record(1000, 1, 1)])
    cut = merge.take(ALL)
    assert names(cut) == [["0/0", "1/0"]]
    assert cut is not None
    assert cut.positions == {0: 1, 1: 1}
    assert cut.watermark_ms == 1000


def test_a_cut_that_has_enough_ends_at_the_end_of_a_bucket() -> None:
    merge: Merge[str] = Merge({0: 0})
    merge.add(0, [record(time, 0, offset) for offset, time in enumerate([0, 10, 20, 1500, 2500, 9000])])
    cut = merge.take(2)
    assert names(cut) == [["0/0", "0/1", "0/2"]]
    assert cut is not None
    assert cut.watermark_ms == 1000
    assert names(merge.take(2)) == [["0/3"], ["0/4"]]


def test_a_released_partition_is_not_waited_for() -> None:
    merge: Merge[str] = Merge({0: 0, 1: 0})
    merge.add(0, [record(100, 0, 0), record(1000, 0, 1)])
    merge.release(1)
    assert names(merge.take(ALL)) == [["0/0"]]
    assert merge.released == [1]


def test_when_no_partition_is_waited_for_everything_is_taken() -> None:
    merge: Merge[str] = Merge({0: 0, 1: 0})
    merge.add(0, [record(100, 0, 0), record(1500, 0, 1)])
    merge.release(0)
    merge.release(1)
    cut = merge.take(ALL)
    assert names(cut) == [["0/0"], ["0/1"]]
    assert cut is not None
    assert cut.positions == {0: 2, 1: 0}


def test_what_a_released_partition_delivers_too_late_comes_first_and_is_counted() -> None:
    merge: Merge[str] = Merge({0: 0, 1: 0})
    merge.add(0, [record(100, 0, 0), record(5000, 0, 1)])
    merge.release(1)
    merge.take(ALL)
    merge.add(1, [record(200, 1, 0), record(300, 1, 1)])
    cut = merge.take(ALL)
    assert names(cut) == [["1/0", "1/1"]]
    assert cut is not None
    assert (cut.out_of_order, cut.positions) == (2, {0: 1, 1: 2})
    assert merge.released == [1]


def test_a_released_partition_that_has_caught_up_is_waited_for_again() -> None:
    merge: Merge[str] = Merge({0: 0, 1: 0})
    merge.add(0, [record(100, 0, 0), record(5000, 0, 1)])
    merge.release(1)
    merge.take(ALL)
    merge.add(1, [record(5500, 1, 0)])
    assert merge.released == []
    merge.add(0, [record(9000, 0, 2)])
    assert merge.take(ALL) is None
    merge.add(1, [record(9000, 1, 1)])
    assert names(merge.take(ALL)) == [["0/1", "1/0"]]


def test_time_does_not_go_back_when_a_new_leader_s_clock_is_behind() -> None:
    merge: Merge[str] = Merge({0: 0, 1: 0})
    merge.add(0, [record(3000, 0, 0), record(1000, 0, 1), record(4000, 0, 2)])
    merge.add(1, [record(2000, 1, 0), record(4000, 1, 1)])
    assert names(merge.take(ALL)) == [["1/0"], ["0/0", "0/1"]]


def test_a_partition_far_ahead_is_not_read_on_and_the_slowest_always_is() -> None:
    merge: Merge[str] = Merge({0: 0, 1: 0})
    merge.add(0, [record(BUCKET_MS * each, 0, each) for each in range(BUFFERED)])
    assert merge.wanted() == [1]
    merge.add(1, [record(BUCKET_MS * BUFFERED, 1, 0)])
    merge.take(ALL)
    assert merge.wanted() == [0, 1]


def test_a_full_buffer_is_read_on_while_others_wait_for_that_partition() -> None:
    merge: Merge[str] = Merge({0: 0, 1: 0})
    merge.add(0, [record(500, 0, each) for each in range(BUFFERED)])
    merge.add(1, [record(9000, 1, 0)])
    assert merge.wanted() == [0, 1]
