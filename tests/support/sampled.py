"""A mesh's own decisions in memory: out of the engine's pipeline, as the sampler notes and the archive has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from prometheus_client import CollectorRegistry

from banditmesh.archive.parquet import encode
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import ManualClock
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline import rules
from services.crs_engine.pipeline.batch import Answered
from services.crs_engine.sampled_decisions import Sampler, messages
from services.learner.archiving.decisions import Became, DecisionsFormat, _table
from tests.support.engine_batch import NOW_S, Bench, BenchReads
from tests.support.fixed_models import models

Reacts = Callable[[str, int], Sequence[str]]
"""What a user does with a content at a position: names of reactions."""


def answers(bench: Bench, users: Sequence[str], count: int, *, seed: int = 0, at_once: int = 64) -> Iterator[Answered]:
    """What the pipeline makes of these users, some of them together."""
    for start in range(0, len(users), at_once):
        pipeline = bench.pipeline(models(bench), seed=seed + start)
        (answered,) = asyncio.run(pipeline.run([bench.group(users[start : start + at_once], count)], BenchReads(bench)))
        yield answered


def sampled(bench: Bench, answered: Answered) -> list[events_pb2.SampledDecision]:
    """All decisions of a group, with all their candidates."""
    rebuilt = {name: rules.rebuilt(placement) for name, placement in bench.mesh.placements.items()}
    metrics, clock = EngineMetrics(CollectorRegistry()), ManualClock(NOW_S)
    sampler = Sampler(bench.catalog, cast(Any, None), clock, metrics, np.random.default_rng(1), rebuilt)
    sampler.offer(answered)
    found: list[events_pb2.SampledDecision] = []
    while not sampler._queue.empty():
        found += messages(sampler._queue.get_nowait())
    return found


def rows(decisions: Sequence[events_pb2.SampledDecision], reacts: Reacts) -> list[dict[str, Any]]:
    """Rows as the archive has them; a click earns 1."""
    now = datetime.fromtimestamp(NOW_S, UTC)
    archive = DecisionsFormat(cast(Any, None), None, cast(Any, None), shown_within_s=60.0)
    found = []
    for number, each in enumerate(decisions):
        reactions = list(reacts(each.decision.content_id, each.decision.position))
        became = Became(now, reactions[0] if reactions else "none", None, float("click" in reactions), reactions, now)
        place = {"decision_log": 1, "decision_partition": 0, "decision_offset": number}
        found.append(archive._row(each, became) | place)
    return found


def write(path: Path, listed: Sequence[dict[str, Any]]) -> Path:
    """As a file of the archive."""
    path.write_bytes(encode(_table(listed)).to_pybytes())
    return path
