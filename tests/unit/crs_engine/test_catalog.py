"""The local columns of contents, and the index that finds their rows."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits import hashing
from banditmesh.bandits.features import FeatureSpec, Featurizer
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.runtime import packing
from services.crs_engine.announcements import MOST_NEW
from services.crs_engine.catalog import ABSENT, KEEP_ABSENT_S, KEEP_S, PUBLISHED_AT, Catalog, Fetched
from services.crs_engine.key_index import KeyIndex

SPEC = FeatureSpec(content=("service", "genre"), multi_valued={"genre": 2})


def packed(content_id: str, *genres: str) -> Fetched:
    content = Content(content_id=content_id, attributes=[Attribute(name="genre", values=genres)])
    return Fetched(
        hashing.content_key("comics", content_id), packing.pack_content("comics", content.SerializeToString())
    )


def catalog(capacity: int = 1000) -> Catalog:
    return Catalog(capacity, [Featurizer(SPEC, strict=False)])


def keys_of(*fetched: Fetched) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array([each.key for each in fetched], np.uint64)


@pytest.mark.parametrize("n", [0, 1, 100, 5000])
def test_the_index_finds_what_was_added_and_nothing_else(n: int) -> None:
    rng = np.random.default_rng(n)
    keys, index = rng.integers(0, 2**64, 2 * n, np.uint64), KeyIndex()
    for start in range(0, n, 700):
        index.add(keys[start : min(start + 700, n)], np.arange(start, min(start + 700, n)))
    assert index.find(keys).tolist() == [*range(n), *[-1] * n]
    assert len(index) == n


def test_keys_that_want_one_slot_are_all_found() -> None:
    keys = np.arange(200, dtype=np.uint64) << np.uint64(40)
    index = KeyIndex()
    index.add(keys, np.arange(200))
    assert index.find(keys).tolist() == list(range(200))
    assert index.find(np.array([5], np.uint64)).tolist() == [-1]


def test_a_content_is_due_until_it_was_read_and_again_when_it_is_old() -> None:
    local, one = catalog(), packed("c1")
    keys = keys_of(one, one)
    assert local.due(keys, local.find(keys), 0.0).tolist() == [one.key]
    local.put([one], 0.0)
    assert local.due(keys, local.find(keys), KEEP_S - 1).tolist() == []
    assert local.due(keys, local.find(keys), KEEP_S).tolist() == [one.key]


def test_what_redis_does_not_have_is_not_asked_for_again_at_once() -> None:
    local, missing = catalog(), Fetched(7, None)
    local.put([missing], 0.0)
    keys = keys_of(missing)
    assert local.due(keys, local.find(keys), KEEP_ABSENT_S - 1).tolist() == []
    assert local.due(keys, local.find(keys), KEEP_ABSENT_S).tolist() == [7]
    assert local.flags(local.find(keys)).tolist() == [ABSENT]


def test_a_changed_content_serves_as_it_was_until_it_is_read_again() -> None:
    local, one, other = catalog(), packed("c1", "drama"), packed("c2")
    local.put([one, other], 0.0)
    keys = keys_of(one, other)
    local.mark_changed(keys_of(one, packed("never seen")))
    rows = local.find(keys)
    assert local.due(keys, rows, 1.0).tolist() == [one.key]
    assert local.content(int(rows[0])).attributes[0].values == ["drama"]
    local.put([packed("c1", "comedy")], 1.0)
    assert local.content(int(local.find(keys)[0])).attributes[0].values == ["comedy"]
    assert len(local) == 2


def test_after_a_gap_everything_is_due() -> None:
    local, fetched = catalog(), [packed(f"c{number}") for number in range(10)]
    local.put(fetched, 0.0)
    local.mark_changed()
    keys = keys_of(*fetched)
    assert len(local.due(keys, local.find(keys), 1.0)) == 10


def test_features_are_those_that_the_featurizer_makes_and_survive_growth() -> None:
    local = catalog(capacity=5000)
    fetched = [packed(f"c{number}", f"g{number % 7}", "all") for number in range(3000)]
    for start in range(0, 3000, 500):
        local.put(fetched[start : start + 500], 0.0)
    block = local.features(0, local.find(keys_of(fetched[0], fetched[2999])))
    expected = Featurizer(SPEC).contents([{"service": "comics", "genre": [f"g{2999 % 7}", "all"]}])
    assert block.ids[1].tolist() == expected.ids[0].tolist()
    assert block.values.tolist() == [[1.0, 1.0, 1.0]] * 2


def test_a_full_catalog_drops_what_was_not_used_and_keeps_what_was() -> None:
    local = catalog(capacity=100)
    fetched = [packed(f"c{number}", "drama") for number in range(100)]
    local.put(fetched, 0.0)
    local.put([packed("first above")], 1.0)  # forgets who used what until now
    used = [each for each in fetched if local.name(each.key) is not None][:60]
    local.find(keys_of(*used))

    local.put([packed(f"new{number}") for number in range(20)], 2.0)

    assert len(local) <= 100
    rows = local.find(keys_of(*used))
    assert (rows >= 0).all()
    assert [local.name_of(row) for row in rows.tolist()] == [
        ("comics", local.content(row).content_id) for row in rows.tolist()
    ]
    assert local.evicted > 0


@pytest.mark.parametrize(
    "value",
    [b"", b"\x05", b"\xff\xff", packing.pack_content("comics", b"\xff"), packing.pack_content("comics", b"")],
    ids=["empty", "torn length", "torn name", "no protobuf", "no content id"],
)
def test_an_unreadable_content_is_as_good_as_none_and_is_counted(value: bytes) -> None:
    local = catalog()
    local.put([Fetched(7, value)], 0.0)
    assert local.flags(local.find(np.array([7], np.uint64))).tolist() == [ABSENT]
    assert local.unreadable == 1


def test_contents_that_are_announced_and_not_here_are_noted_the_latest_first_and_a_bounded_number() -> None:
    held = Catalog(1000, [], notes_new=True)
    held.put([Fetched(7, None)], 0.0)
    held.mark_changed(np.arange(5, 10, dtype=np.uint64))
    assert held.announced.take_new(3).tolist() == [9, 8, 6]
    assert held.announced.take_new(3).tolist() == [5]
    held.mark_changed(np.arange(20_000, dtype=np.uint64))
    taken = held.announced.take_new(20_000).tolist()
    assert (len(taken), taken[0]) == (MOST_NEW, 19_999)
    quiet = Catalog(1000, [])
    quiet.mark_changed(np.arange(5, dtype=np.uint64))
    assert len(quiet.announced.take_new(9)) == 0


def test_the_newest_contents_are_those_that_can_be_shown_by_their_date_or_by_when_they_came() -> None:
    held = Catalog(1000, [])
    comics, news = hashing.service_key("comics"), hashing.service_key("news")

    def put(key: int, service: str, at_s: float, **fields: object) -> None:
        content = Content(content_id=str(key), **fields)  # type: ignore[arg-type]
        held.put([Fetched(key, packing.pack_content(service, content.SerializeToString()))], 0.0, at_s)

    put(1, "comics", 100.0)
    put(2, "comics", 300.0)
    put(3, "comics", 400.0, hidden=True)
    put(4, "news", 200.0)
    put(5, "comics", 500.0, attributes=[Attribute(name=PUBLISHED_AT, number=150.0)])
    put(6, "shop", 600.0)
    held.put([Fetched(7, None)], 0.0, 700.0)
    found, services = held.newest(np.array([comics, news], np.uint64), 3, 1000.0)
    assert (found.tolist(), services.tolist()) == ([2, 4, 5], [comics, news, comics])
    put(1, "comics", 900.0)  # read again: not newer by that
    assert held.newest(np.array([comics], np.uint64), 9, 1000.0)[0].tolist() == [2, 5, 1]


def test_a_change_that_is_announced_while_the_content_is_read_is_not_lost() -> None:
    local, one, other = catalog(), packed("c1"), packed("c2")
    keys = keys_of(one, other)
    with local.announced.reading() as reading:
        local.mark_changed(keys_of(one))  # the value that is on its way is the old one
        local.put([one, other], 0.0, reading=reading)
    assert local.due(keys, local.find(keys), 1.0).tolist() == [one.key]
    with local.announced.reading() as reading:
        local.put([one], 1.0, reading=reading)
    assert local.due(keys, local.find(keys), 2.0).tolist() == []


def test_when_everything_may_have_changed_meanwhile_all_that_is_read_is_read_again() -> None:
    local, one, other = catalog(), packed("c1"), packed("c2")
    keys = keys_of(one, other)
    with local.announced.reading() as reading:
        local.mark_changed(None)
        local.put([one, other], 0.0, reading=reading)
    assert sorted(local.due(keys, local.find(keys), 1.0).tolist()) == sorted(keys.tolist())


def test_a_change_before_the_read_began_or_after_it_ended_concerns_it_as_ever() -> None:
    local, one = catalog(), packed("c1")
    keys = keys_of(one)
    local.mark_changed(keys)
    with local.announced.reading() as reading:
        local.put([one], 0.0, reading=reading)
    assert local.due(keys, local.find(keys), 1.0).tolist() == []
    local.mark_changed(keys)
    assert local.due(keys, local.find(keys), 1.0).tolist() == [one.key]


def test_large_contents_make_room_before_their_number_is_reached() -> None:
    local = Catalog(1000, [], most_bytes=100_000)
    for number in range(100):
        local.put([packed(f"c{number}", "g" * 2_000)], float(number))
    assert 20 < len(local) <= 50
    assert local.evicted == 100 - len(local)
    newest = keys_of(packed("c99"))
    assert local.find(newest)[0] >= 0


def test_a_changed_content_of_a_followed_service_is_noted_though_it_is_here() -> None:
    local = Catalog(1000, [Featurizer(SPEC, strict=False)], follows=["comics"])
    one, other = packed("c1"), Fetched(9, packing.pack_content("weather", Content(content_id="w").SerializeToString()))
    local.put([one, other], 0.0)
    local.mark_changed(np.array([one.key, other.key, 77], np.uint64))
    assert sorted(local.announced.take_new(10).tolist()) == sorted([one.key, 77])
    assert local.count_live("comics", 0.0) == 1


def test_what_was_lost_of_the_announcements_is_counted() -> None:
    local = Catalog(1000, [Featurizer(SPEC, strict=False)], follows=["comics"])
    local.mark_changed(np.arange(MOST_NEW + 2, dtype=np.uint64))
    assert local.announced.losses == 2
    local.mark_changed(None)
    assert local.announced.losses == 3
