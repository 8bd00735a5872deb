"""The evening before the news demo's day: what each reader opened then comes into the mesh as anything does, by a
mapping file, lists, impressions and clicks. So the day begins with readers of whom something is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from banditmesh.client import MeshClient, click, shown
from banditmesh.demo.imports import import_file
from banditmesh.demo.news_world import NewsWorld
from banditmesh.demo.target import Target
from banditmesh.demo.visits import in_order
from banditmesh.selection import Nothing

PLACEMENT, LOGIC = "evening", "read"
OPENED = 12
"""Articles that each reader opened; a reader of a real paper has opened more in a week."""
_AT_ONCE = 48
_DEADLINE_S = 30.0


async def read_the_evening_paper(
    world: NewsWorld, target: Target, client: MeshClient, service: str, folder: Path, seed: int
) -> int:
    """Let each reader open what the reader would; returns how many clicks that were.

    Raises:
        ImportFailed: The importer refused the file.
        MeshError: A service refused a reader.
    """
    rng = np.random.default_rng(seed)
    opened = {f"r{at}": world.opened(at, OPENED, rng).astype(str).tolist() for at in range(len(world.tastes))}
    path = await asyncio.to_thread(_written, folder, opened)
    await import_file(target, path, service, LOGIC, version="evening")
    clicks = 0

    async def visit(reader: str) -> None:
        nonlocal clicks
        found = await client.recommend(PLACEMENT, reader, count=OPENED, deadline_s=_DEADLINE_S)
        if isinstance(found, Nothing):
            return
        events = [event for each in found for event in (shown(each), click(each))]
        for refused in await client.track(events, deadline_s=_DEADLINE_S):
            if refused is not None:
                raise refused
        clicks += len(found)

    await in_order(opened, visit, at_once=_AT_ONCE)
    return clicks


def _written(folder: Path, opened: Mapping[str, Sequence[str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{LOGIC}.jsonl"
    path.write_text("".join(json.dumps({"user_id": who, "contents": of}) + "\n" for who, of in opened.items()))
    return path
