"""What the learner's calls say while the store hangs: that it does, before anything is begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from banditmesh.contracts.learner.v1 import learner_pb2 as pb
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.store import must_answer
from services.learner.catalog import Catalog
from services.learner.servicer import LearnerServicer

MESH = Mesh.model_validate(
    {
        "services": {"weather": {"logics": ["today"]}},
        "placements": {
            "home": {
                "sources": ["weather/today"],
                "experiment": {"variants": {"learned": {"weight": 1, "policy": {"linucb": {}}}}},
            }
        },
    }
)


class HangingStore:
    """Says that it does not answer, and has nothing else."""

    location = "s3://bucket?endpoint=http://host:1"

    async def ping(self) -> None:
        raise Unavailable(f"{self.location} does not answer", dependency="store")


class Untouched:
    """What must not be asked of while the store hangs."""

    restored = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


def servicer() -> LearnerServicer:
    catalog = Catalog(MESH)
    untouched = cast(Any, Untouched())
    untouched.restored.set()
    densities = cast(Any, Untouched())
    densities.shards = {}
    return LearnerServicer(
        catalog,
        dict.fromkeys(catalog.models, untouched),
        cast(Any, HangingStore()),
        untouched,
        untouched,
        untouched,
        untouched,
        untouched,
        densities,
        ordinal=0,
        replicas=1,
    )


Call = Callable[[LearnerServicer], Awaitable[object]]


@pytest.mark.parametrize(
    "call",
    [
        lambda it: it.ListSnapshots(pb.ListSnapshotsRequest(placement="home", model="linucb"), None),
        lambda it: it.RollbackSnapshot(pb.RollbackSnapshotRequest(placement="home", model="linucb", version=1), None),
        lambda it: it.GetExperimentReport(pb.GetExperimentReportRequest(placement="home"), None),
        lambda it: it.ResumeVariant(pb.ResumeVariantRequest(placement="home", variant="learned"), None),
        lambda it: it.EvaluatePolicy(pb.EvaluatePolicyRequest(placement="home", variant="learned"), None),
    ],
    ids=["ListSnapshots", "RollbackSnapshot", "GetExperimentReport", "ResumeVariant", "EvaluatePolicy"],
)
async def test_a_call_that_needs_the_store_asks_first_whether_it_answers(call: Call) -> None:
    with pytest.raises(Unavailable, match=r"s3://bucket\S* does not answer"):
        await call(servicer())


async def test_a_store_that_hangs_is_given_up_with_its_address() -> None:
    class Silent:
        location = "s3://bucket?endpoint=http://host:1"

        async def ping(self) -> None:
            await asyncio.Event().wait()

    with pytest.raises(Unavailable, match=r"s3://bucket\?endpoint=http://host:1 does not answer within 0 s") as away:
        await must_answer(cast(Any, Silent()), 0.0)

    assert away.value.retry_after_s is not None
