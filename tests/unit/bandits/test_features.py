from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.errors import InvalidFeature
from banditmesh.bandits.features import FeatureSpec, Featurizer, Fields
from banditmesh.bandits.hashing import categorical_id, cross, numeric_id

NOON = datetime(2026, 11, 22, 12, tzinfo=ZoneInfo("UTC")).timestamp()  # a Sunday


def entries(rows: SparseRows) -> list[dict[int, float]]:
    pairs = list(zip(rows.ids.tolist(), rows.values.tolist(), strict=True))
    return [dict(pairs[start:stop]) for start, stop in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]


def crossed(left: int, right: int) -> int:
    return int(cross(np.array([left], np.uint32), np.array([right], np.uint32))[0])


def context_of(spec: FeatureSpec, profile: Fields, state: Fields, time_s: float = NOON) -> dict[int, float]:
    featurizer = Featurizer(spec)
    users = featurizer.users([profile], [state], np.array([time_s]))
    context, _ = featurizer.rows(users, featurizer.contents([]), np.array([0, 0]))
    return entries(context)[0]


def test_strings_are_categories_and_numbers_numeric() -> None:
    spec = FeatureSpec(profile=("gender", "age", "member"), state=("clicks",))
    assert context_of(spec, {"gender": "f", "age": 31, "member": True, "unused": "x"}, {"clicks": 2.5}) == {
        categorical_id("gender", "f"): 1.0,
        numeric_id("age"): 31.0,
        categorical_id("member", "true"): 1.0,
        numeric_id("clicks"): 2.5,
    }


def test_a_missing_field_gives_no_feature() -> None:
    assert context_of(FeatureSpec(profile=("gender", "age")), {"age": None}, {}) == {}


@pytest.mark.parametrize(
    ("zone", "hour", "weekday"),
    [("UTC", "12", "6"), ("Asia/Tokyo", "21", "6"), ("Pacific/Auckland", "1", "0"), ("Asia/Kathmandu", "17", "6")],
)
def test_hour_and_weekday_are_categories_of_the_local_clock(zone: str, hour: str, weekday: str) -> None:
    spec = FeatureSpec(context=("weekday", "hour"), time_zone=zone)
    assert context_of(spec, {}, {}) == {categorical_id("hour", hour): 1.0, categorical_id("weekday", weekday): 1.0}


@given(st.lists(st.integers(0, 2_000_000_000), max_size=5), st.sampled_from(["Europe/Berlin", "America/St_Johns"]))
def test_local_time_agrees_with_the_calendar_over_changes_of_the_clock(times: list[int], zone: str) -> None:
    featurizer = Featurizer(FeatureSpec(context=("hour", "weekday"), time_zone=zone))
    block = featurizer.users([{}] * len(times), [{}] * len(times), np.array(times, float))
    for row, time in enumerate(times):
        local = datetime.fromtimestamp(time, ZoneInfo(zone))
        expected = [categorical_id("hour", str(local.hour)), categorical_id("weekday", str(local.weekday()))]
        assert block.ids[row].tolist() == expected


def test_a_batch_has_shared_and_own_features_and_their_crosses() -> None:
    spec = FeatureSpec(
        profile=("age_band",),
        state=("clicks",),
        context=("hour",),
        content=("service", "price"),
        crosses=(("age_band", "service"), ("price", "clicks"), ("hour", "age_band"), ("service", "price")),
    )
    featurizer = Featurizer(spec)
    users = featurizer.users([{"age_band": "20s"}, {}], [{"clicks": 3.0}, {"clicks": 5.0}], np.array([NOON, NOON]))
    catalog = featurizer.contents([{"service": "news", "price": 2.0}, {"service": "comics"}])
    context, own = featurizer.rows(users, catalog.take(np.array([1, 0, 0])), np.array([0, 2, 3]))
    age, hour = categorical_id("age_band", "20s"), categorical_id("hour", "12")
    news, comics = categorical_id("service", "news"), categorical_id("service", "comics")
    price, clicks = numeric_id("price"), numeric_id("clicks")
    assert entries(context) == [
        {age: 1.0, clicks: 3.0, hour: 1.0, crossed(hour, age): 1.0},
        {clicks: 5.0, hour: 1.0},
    ]
    assert entries(own) == [
        {comics: 1.0, crossed(age, comics): 1.0},
        {news: 1.0, price: 2.0, crossed(age, news): 1.0, crossed(price, clicks): 6.0, crossed(news, price): 2.0},
        {news: 1.0, price: 2.0, crossed(price, clicks): 10.0, crossed(news, price): 2.0},
    ]


GENRES = FeatureSpec(
    profile=("likes", "gender"),
    content=("genres", "service"),
    multi_valued={"genres": 3, "likes": 2},
    crosses=(("gender", "genres"), ("likes", "genres")),
)


def test_each_different_value_of_a_list_is_a_feature_up_to_the_columns_of_the_field() -> None:
    films = [["drama", "war"], ["war", "war", "drama"], ["a", "b", "c", "d"], [], "noir", ("war",)]
    block = Featurizer(GENRES).contents([{"genres": film, "service": "films"} for film in films])
    assert block.ids.shape == (6, GENRES.content_columns) == (6, 4)
    wanted = [["drama", "war"], ["war", "drama"], ["a", "b", "c"], [], ["noir"], ["war"]]
    films_id = categorical_id("service", "films")
    assert (block.values > 0).sum(axis=1).tolist() == [len(genres) + 1 for genres in wanted]
    assert entries(block.sparse()) == [
        {**{categorical_id("genres", genre): 1.0 for genre in genres}, films_id: 1.0} for genres in wanted
    ]
    assert GENRES.columns(GENRES.content) == {"genres": range(3), "service": range(3, 4)}
    assert GENRES.user_columns == 3


def test_a_list_in_a_field_of_one_value_counts_by_its_first() -> None:
    spec = FeatureSpec(profile=("likes",))
    assert context_of(spec, {"likes": ["war", "drama"]}, {}) == {categorical_id("likes", "war"): 1.0}
    assert context_of(spec, {"likes": []}, {}) == {}


def test_a_cross_takes_each_value_of_a_list() -> None:
    featurizer = Featurizer(GENRES)
    users = featurizer.users([{"likes": ["noir", "war"], "gender": "f"}], [{}], np.array([NOON]))
    contents = featurizer.contents([{"genres": ["drama", "war"]}])
    _, own = featurizer.rows(users, contents, np.array([0, 1]))
    genres = [categorical_id("genres", genre) for genre in ("drama", "war")]
    takers = [categorical_id("gender", "f"), *(categorical_id("likes", genre) for genre in ("noir", "war"))]
    crosses = {crossed(taker, genre): 1.0 for taker in takers for genre in genres}
    assert entries(own) == [{**dict.fromkeys(genres, 1.0), **crosses}]


def test_context_beside_the_clock_comes_with_the_request() -> None:
    spec = FeatureSpec(context=("device", "hour", "battery", "page"))
    asked: list[Fields] = [{"device": "phone", "battery": 0.5, "hour": "7", "unused": "x"}, {}]
    noon = categorical_id("hour", "12")
    block = Featurizer(spec).users([{}, {}], [{}, {}], np.array([NOON, NOON]), asked)
    assert entries(block.sparse()) == [
        {categorical_id("device", "phone"): 1.0, noon: 1.0, numeric_id("battery"): 0.5},
        {noon: 1.0},
    ]
    assert context_of(spec, {}, {}) == {noon: 1.0}


def test_an_empty_batch_has_empty_rows() -> None:
    featurizer = Featurizer(FeatureSpec(profile=("a",), content=("b",), context=("hour",), crosses=(("a", "b"),)))
    context, own = featurizer.rows(
        featurizer.users([], [], np.zeros(0)), featurizer.contents([]), np.zeros(1, np.int64)
    )
    assert (len(context), len(own)) == (0, 0)


BROKEN = [float("nan"), float("inf"), -float("inf"), 1e39, 10**400, ["a", 1], b"a"]


@pytest.mark.parametrize(
    "value", BROKEN, ids=["nan", "inf", "-inf", "beyond float32", "beyond float", "mixed list", "bytes"]
)
def test_a_broken_value_is_named_when_strict_and_counted_when_not(value: Any) -> None:
    spec = FeatureSpec(profile=("age", "gender"))
    profile = {"age": value, "gender": "f"}
    with pytest.raises(InvalidFeature) as refused:
        Featurizer(spec).users([profile], [{}], np.array([NOON]))
    assert refused.value.field == "age"
    assert refused.value.value is value
    lenient = Featurizer(spec, strict=False)
    block = lenient.users([profile], [{}], np.array([NOON]))
    assert entries(block.sparse()) == [{categorical_id("gender", "f"): 1.0}]
    assert lenient.dropped == {"age": 1}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"profile": ["a"], "content": ["a"]}, "'a' stands twice"),
        ({"profile": ["a"], "crosses": [["a", "b"]]}, "'b' is none of a"),
        ({"profile": ["a"], "crosses": [["a", "a"]]}, "crossed with itself"),
        ({"profile": ["a=b"]}, "must not be empty or contain"),
        ({"context": ["device"], "multi_valued": {"device": 2}}, "'device' is no field of profile or content"),
        ({"content": ["genres"], "multi_valued": {"genres": 1}}, "greater than or equal to 2"),
        ({"content": ["genres"], "multi_valued": {"genres": 17}}, "less than or equal to 16"),
        ({"time_zone": "Mars/Olympus"}, "no time zone is called 'Mars/Olympus'"),
        ({"contents": ["a"]}, "contents"),
    ],
)
def test_a_specification_that_makes_no_sense_says_why(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FeatureSpec.model_validate(given)
