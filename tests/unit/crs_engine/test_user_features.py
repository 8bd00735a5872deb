"""The user's side: profile, state and moment become the columns that the placement's features name."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest

from banditmesh.bandits.features import FeatureSpec
from banditmesh.bandits.hashing import categorical_id
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine import user_features
from services.crs_engine.catalog import content_fields
from services.crs_engine.user_features import UserFeatures

NOON_S = 1_700_000_000.0 // 86_400 * 86_400 + 12 * 3600

SPEC = FeatureSpec(
    profile=("gender", "likes"),
    state=("clicks",),
    context=("device", "hour", "page"),
    content=("genres",),
    multi_valued={"likes": 2, "genres": 3},
)


def features_of(profile: bytes, *contexts: Mapping[str, str], now_s: float = NOON_S) -> list[set[int]]:
    """The ids of users of this profile, one for each context."""
    users = UserFeatures(SPEC, [])
    rows = users.read([profile] * len(contexts))
    block = users.block(rows, UserRecords([None] * len(contexts)), contexts, now_s)
    assert block.ids.shape == (len(contexts), SPEC.user_columns)
    sparse = block.sparse()
    return [set(ids.tolist()) for ids in np.split(sparse.ids, sparse.offsets[1:-1])]


def ids(*named: tuple[str, str]) -> set[int]:
    return {categorical_id(field, value) for field, value in named}


NO_CLICKS, NOON = ("clicks", "0"), ("hour", "12")


def test_what_came_with_a_request_is_a_feature_of_that_request_alone() -> None:
    contexts: list[Mapping[str, str]] = [{"device": "phone", "unnamed": "x"}, {}, {"page": "home", "hour": "3"}]
    assert features_of(b"", *contexts) == [
        ids(NO_CLICKS, NOON, ("device", "phone")),
        ids(NO_CLICKS, NOON),
        ids(NO_CLICKS, NOON, ("page", "home")),
    ]


def test_the_hour_of_a_cached_moment_does_not_outlive_its_quarter() -> None:
    users = UserFeatures(SPEC, [])
    rows, states = users.read([b""]), UserRecords([None])
    before, after = (users.block(rows, states, [{}], NOON_S + shift).sparse().ids for shift in (-1.0, 0.0))
    assert set(before.tolist()) == ids(NO_CLICKS, ("hour", "11"))
    assert set(after.tolist()) == ids(NO_CLICKS, NOON)


def test_the_hour_is_that_of_the_users_own_clock() -> None:
    tokyo = b'{"time_zone": "Asia/Tokyo"}'
    contexts: list[Mapping[str, str]] = [{}, {"time_zone": "America/New_York"}, {"time_zone": "Mars/Olympus"}]
    found = features_of(tokyo, *contexts)
    assert found == [ids(NO_CLICKS, ("hour", each)) for each in ("21", "7", "12")]
    assert features_of(b"", {}, contexts[1]) == [ids(NO_CLICKS, ("hour", each)) for each in ("12", "7")]


def test_what_was_read_of_profiles_stays_true_when_the_table_forgets_them() -> None:
    users = UserFeatures(SPEC, ["weather", "comics"], most_profiles=3)
    ann = users.read([b'{"gender": "f", "used_services": ["comics"]}'])
    for number in range(20):  # others come while the batch of ann is under way
        users.read([f'{{"gender": "g{number}", "used_services": ["weather"]}}'.encode()])
    sparse = users.block(ann, UserRecords([None]), [{}], NOON_S).sparse()
    assert set(sparse.ids.tolist()) == ids(NO_CLICKS, NOON, ("gender", "f"))
    assert (ann.used.tolist(), ann.knows_services.tolist()) == ([[False, True]], [True])


def test_each_value_of_a_list_in_a_profile_is_a_feature() -> None:
    profile = b'{"gender": ["f", "x"], "likes": ["war", "noir", "drama"]}'
    both = ids(NO_CLICKS, NOON, ("gender", "f"), ("likes", "war"), ("likes", "noir"))
    assert features_of(profile, {}) == [both]


def test_the_values_of_an_attribute_stay_apart() -> None:
    content = Content(
        attributes=[Attribute(name="genres", values=["war", "noir"]), Attribute(name="year", number=1999.0)]
    )
    assert content_fields("films", content) == {"genres": ["war", "noir"], "year": 1999.0, "service": "films"}


def test_profiles_are_remembered_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_features, "MOST_PROFILE_BYTES", 2_000)
    features = UserFeatures(FeatureSpec(profile=("age",)), ["weather"])
    for number in range(100):
        text = json.dumps({"age": str(number), "filler": "x" * 100}).encode()
        assert features.read([text]).ids.shape == (1, 1)
        assert sum(map(len, features._row_of)) <= 2_000 + len(text)
