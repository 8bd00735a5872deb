"""The status that each wrong request gets, with the field that is wrong and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1.events_pb2 import Decision
from banditmesh.runtime.token import KeyRing
from tests.support.engine_world import TOKEN_KEYS, World, engine_world

ONE = pb.SelectContentRequest(placement="head", user_id="ann")


@pytest_asyncio.fixture
async def world(fresh_redis: str, tmp_path: Path) -> AsyncIterator[World]:
    async with engine_world(fresh_redis, tmp_path) as running:
        yield running


def refused(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    """The code, and the field that the details name."""
    bad = error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(error).details:
        if detail.Unpack(bad):
            return error.code(), bad.field_violations[0].field
    return error.code(), ""


async def refusal(world: World, method: str, request: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(world.stub, method)(request, timeout=10)
    return refused(raised.value)


INVALID, MISSING, DENIED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
)


@pytest.mark.parametrize(
    ("method", "wrong", "code", "field"),
    [
        ("SelectContent", pb.SelectContentRequest(placement="haed", user_id="ann"), MISSING, "placement"),
        ("SelectContent", pb.SelectContentRequest(user_id="ann"), INVALID, "placement"),
        ("SelectContent", pb.SelectContentRequest(placement="head"), INVALID, "user_id"),
        ("SelectContent", pb.SelectContentRequest(placement="head", user_id="é" * 65), INVALID, "user_id"),
        (
            "SelectContent",
            pb.SelectContentRequest(placement="head", user_id="ann", context={str(n): "" for n in range(33)}),
            INVALID,
            "context",
        ),
        ("SelectContent", pb.SelectContentRequest(placement="x" * 4_000_000, user_id="ann"), INVALID, "placement"),
        ("SelectContent", pb.SelectContentRequest(placement="head", user_id="x" * 4_000_000), INVALID, "user_id"),
        (
            "SelectContent",
            pb.SelectContentRequest(placement="head", user_id="ann", context={"device": "x" * 257}),
            INVALID,
            "context[device]",
        ),
        (
            "SelectContent",
            pb.SelectContentRequest(placement="head", user_id="ann", context={"x" * 65: "tablet"}),
            INVALID,
            "context",
        ),
        ("GetModelStatus", pb.GetModelStatusRequest(placement="x" * 4_000_000), INVALID, "placement"),
        ("BatchSelectContents", pb.BatchSelectContentsRequest(), INVALID, "requests"),
        ("BatchSelectContents", pb.BatchSelectContentsRequest(requests=[ONE] * 513), INVALID, "requests"),
        ("RecommendContents", pb.RecommendContentsRequest(placement="head", user_id="ann", count=51), INVALID, "count"),
        ("RecommendContents", pb.RecommendContentsRequest(placement="x", user_id="ann"), MISSING, "placement"),
        ("ExplainDecision", pb.ExplainDecisionRequest(), INVALID, "subject"),
        (
            "ExplainDecision",
            pb.ExplainDecisionRequest(dry_run=pb.SelectContentRequest(placement="head")),
            INVALID,
            "dry_run.user_id",
        ),
        ("ExplainDecision", pb.ExplainDecisionRequest(impression_token=b"no token"), INVALID, "impression_token"),
        ("GetModelStatus", pb.GetModelStatusRequest(placement="nowhere"), MISSING, "placement"),
    ],
)
async def test_a_wrong_request_is_refused_with_its_field(
    world: World, method: str, wrong: object, code: grpc.StatusCode, field: str
) -> None:
    assert await refusal(world, method, wrong) == (code, field)


async def test_an_unknown_placement_is_answered_with_the_one_that_was_meant(world: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="did you mean 'head'"):
        await world.select("ann", "haed")


async def test_a_user_id_of_exactly_128_bytes_is_served(world: World) -> None:
    assert (await world.select("é" * 64)).WhichOneof("outcome") == "no_content"


@pytest.mark.parametrize(
    ("keys", "age_s", "code"),
    [
        (TOKEN_KEYS, 2 * 3600, INVALID),
        ("1:" + "cd" * 32, 0, DENIED),
        ("2:" + "ab" * 32, 0, DENIED),
    ],
    ids=["too old", "forged", "of another mesh"],
)
async def test_a_token_that_cannot_be_trusted_is_not_explained(
    world: World, keys: str, age_s: int, code: grpc.StatusCode
) -> None:
    decided_at_ms = int((world.server.clock.now_s() - age_s) * 1000)
    token = KeyRing.parse(keys).sign(Decision(placement="head", user_id="ann", decided_at_ms=decided_at_ms))
    request = pb.ExplainDecisionRequest(impression_token=token)
    assert await refusal(world, "ExplainDecision", request) == (code, "impression_token")


async def test_a_token_is_explained_with_what_was_decided_and_what_would_be_now(world: World) -> None:
    rain, sun = await world.hands.content("weather", "rain"), await world.hands.content("weather", "sun")
    await world.hands.mapping("weather/today", {"ann": [rain]})
    await world.parts.live.reread()
    token = (await world.select("ann")).content.impression_token
    await world.hands.mapping("weather/today", {"ann": [sun]})
    await world.parts.live.reread()

    explained = await world.stub.ExplainDecision(pb.ExplainDecisionRequest(impression_token=token))

    assert explained.decided.content_id == "rain"
    assert [each.content_id for each in explained.candidates] == ["sun"]
