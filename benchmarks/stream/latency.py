"""From a click to the user's next selection, and from a window's end to an engine that knows: in a whole mesh."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc

from banditmesh.client import ClientLimits, MeshClient, Nothing, Selected, click, shown
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2, crs_engine_pb2_grpc
from banditmesh.demo.imports import import_file
from banditmesh.demo.target import local_target
from banditmesh.local.stack import LocalMesh
from benchmarks.stream.stage import Figures, percentile

CLICKS = 300
TURNS = 8
WINDOW_S = 2.0
PUBLISH_S = 5.0
"""``learning.snapshot_every`` of this measurement."""
MESH = f"""
services: {{films: {{logics: [similar]}}}}
placements:
  home:
    sources: [films/similar]
    experiment: {{variants: {{learned: {{weight: 1, policy: {{linucb: {{arm: logic}}}}}}}}}}
    fallback: none
join: {{window: {WINDOW_S:g}s, tick_every: 200ms}}
learning: {{snapshot_every: {PUBLISH_S:g}s}}
engine: {{model_poll: 1s, redis_timeout: 250ms}}
"""


def measure(folder: Path) -> Figures:
    """See the module."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "mesh.yaml"
    config.write_text(MESH)
    users = [f"u{number}" for number in range(CLICKS + 10 * TURNS)]
    with LocalMesh(folder / "mesh", config) as mesh:
        return asyncio.run(_measure(mesh, users))


async def _measure(mesh: LocalMesh, users: list[str]) -> Figures:
    path = mesh.folder / "similar.csv"
    path.write_text("user_id,contents\n" + "".join(f"{user},film-1\n" for user in users))
    await import_file(local_target(mesh), path, "films", "similar", version="1")
    limits = ClientLimits(deadline_s=10.0)
    async with MeshClient(mesh.addresses["crs_engine"], mesh.addresses["tracker"], limits=limits) as client:
        seen = [await _click_to_seen(client, user) for user in users[:CLICKS]]
        ends = [
            await _end_to_engine(mesh, client, users[CLICKS + 10 * turn : CLICKS + 10 * turn + 10])
            for turn in range(TURNS)
        ]
    return {
        "click_seen_p50_ms": 1000 * percentile(seen, 50),
        "click_seen_p99_ms": 1000 * percentile(seen, 99),
        "window_end_mean_s": sum(ends) / len(ends),
        "window_end_most_s": max(ends),
        "publish_every_s": PUBLISH_S,
    }


async def _click_to_seen(client: MeshClient, user: str) -> float:
    """Seconds from the click's acknowledgement to a selection that does not show the clicked content any more."""
    selection = await client.select("home", user)
    assert isinstance(selection, Selected)
    await client.track([shown(selection), click(selection)])
    began = time.monotonic()
    while not isinstance(await client.select("home", user), Nothing):  # noqa: ASYNC110 # that is what is measured
        await asyncio.sleep(0.002)
    return time.monotonic() - began


async def _end_to_engine(mesh: LocalMesh, client: MeshClient, users: list[str]) -> float:
    """Seconds from the end of the last impression's window to an engine that has the model with it."""
    before = await _version(mesh)
    for user in users:
        selection = await client.select("home", user)
        assert isinstance(selection, Selected)
        await client.track([shown(selection)])
    due = time.monotonic() + WINDOW_S
    await asyncio.sleep(WINDOW_S)  # what is published before has not all of them
    before = max(before, await _version(mesh))
    while await _version(mesh) <= before:  # noqa: ASYNC110 # that is what is measured
        await asyncio.sleep(0.02)
    return time.monotonic() - due


async def _version(mesh: LocalMesh) -> int:
    async with grpc.aio.insecure_channel(mesh.addresses["crs_engine"]) as channel:
        stub = crs_engine_pb2_grpc.CrsEngineServiceStub(channel)
        status = await stub.GetModelStatus(crs_engine_pb2.GetModelStatusRequest(), timeout=5)
    return max((model.version for model in status.models), default=0)
