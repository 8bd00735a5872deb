"""What a mesh for so many users costs: cores, memory, Redis, Kafka, out of measured figures.

Every figure names where it was measured; `python -m benchmarks.services` measures the CPU again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REDIS_BYTES_A_USER = 1024
"""1021 measured for 30 candidates of 5 services, profile and record (benchmarks/engine.md); the bound is 1024."""
REDIS_BYTES_AN_IMPRESSION = 120
"""A mark for ``token.max_age`` + window + slack (docs/operations.md)."""
REDIS_OVERHEAD = 1.5
"""Fragmentation, and room for the copy-on-write of an AOF rewrite."""
KAFKA_BYTES_AN_IMPRESSION, KAFKA_BYTES_AN_EXAMPLE, KAFKA_BYTES_A_REACTION = 300, 450, 300
REACTIONS_AN_IMPRESSION = 0.2
KAFKA_REPLICAS = 3
IMPRESSION_DAYS, EXAMPLE_DAYS = 7, 30
"""Retention of the topics (banditmesh/runtime/kafka/topics.py)."""

CPU_US = {
    "engine": 215.0,  # a selection
    "tracker": 179.0,  # an event
    "joiner": 245.0,  # an impression with its reactions
    "learner": 106.0,  # an example and model
    "importer": 53.0,  # a row of 30 candidates
}
"""CPU µs, measured in a whole mesh (benchmarks/services.md)."""
BUSY_SHARE = 0.6
"""How busy a process may be at the peak."""
IMPORT_WITHIN_S = 1800
"""A mapping of all users is imported in half an hour."""
MARK_HOURS = 7.2
"""``token.max_age`` 1 h, a window of 10 min and ``join.slack`` 6 h, rounded up."""
PEAK_SHARE = 0.6
"""Selections that become impressions: an app asks for more than it shows."""


@dataclass(frozen=True)
class Demand:
    """What is asked of a mesh.

    Attributes:
        users: Who have candidates.
        impressions_per_day: Contents shown.
        peak_rps: Selections a second at the peak.
        models: Models that learn (placements × variants).
    """

    users: int
    impressions_per_day: int
    peak_rps: int
    models: int = 2


@dataclass(frozen=True)
class Plan:
    """What it takes."""

    replicas: dict[str, int]
    cores: dict[str, float]
    redis_gib: float
    kafka_gib_a_day: float
    kafka_gib: float
    partitions: int
    beyond: tuple[str, ...]
    """What cannot be had by more pods."""


def plan(demand: Demand) -> Plan:
    """Work it out."""
    peak_impressions = max(demand.peak_rps * PEAK_SHARE, demand.impressions_per_day / 86_400)
    events = peak_impressions * (1 + REACTIONS_AN_IMPRESSION)
    load = {
        "engine": demand.peak_rps * CPU_US["engine"],
        "tracker": events * CPU_US["tracker"],
        "joiner": peak_impressions * CPU_US["joiner"],
        "learner": peak_impressions * demand.models * CPU_US["learner"],
        "importer": demand.users / IMPORT_WITHIN_S * CPU_US["importer"],
    }
    cores = {name: us / 1e6 for name, us in load.items()}
    # A Python process uses one core; two of each, so that one may be away. The learner's shards are models.
    replicas = {name: max(2, math.ceil(value / BUSY_SHARE)) for name, value in cores.items()}
    replicas["learner"] = min(max(1, math.ceil(cores["learner"] / BUSY_SHARE)), demand.models)
    partitions = max(4, 1 << math.ceil(math.log2(2 * replicas["joiner"])))

    beyond = []
    share = cores["learner"] / demand.models
    if share > BUSY_SHARE:
        late_h = 24 * demand.impressions_per_day / 86_400 * CPU_US["learner"] / 1e6
        how = "never catches up" if late_h > 24 else "is behind at the peak"
        beyond.append(f"a model needs {share:.1f} cores at the peak of one, {late_h:.1f} hours a day: it {how}")

    marks = demand.impressions_per_day / 24 * MARK_HOURS * REDIS_BYTES_AN_IMPRESSION
    redis = (demand.users * REDIS_BYTES_A_USER + marks) * REDIS_OVERHEAD
    reactions = REACTIONS_AN_IMPRESSION * KAFKA_BYTES_A_REACTION
    short = demand.impressions_per_day * (KAFKA_BYTES_AN_IMPRESSION + reactions)
    long = demand.impressions_per_day * KAFKA_BYTES_AN_EXAMPLE
    gib = 2.0**30
    return Plan(
        replicas=replicas,
        cores=cores,
        redis_gib=redis / gib,
        kafka_gib_a_day=(short + long) / gib,
        kafka_gib=(short * IMPRESSION_DAYS + long * EXAMPLE_DAYS) * KAFKA_REPLICAS / gib,
        partitions=partitions,
        beyond=tuple(beyond),
    )


def values(demand: Demand) -> str:
    """A values file for the chart, with what it costs as comments."""
    needed = plan(demand)
    cores, pods = sum(needed.cores.values()), sum(needed.replicas.values())
    lines = [
        f"# {demand.users:,} users, {demand.impressions_per_day:,} impressions a day,"
        f" {demand.peak_rps:,} selections a second at the peak",
        f"# services: {cores:.1f} busy cores at the peak, {pods} pods",
        f"# Redis: {needed.redis_gib:,.1f} GiB of memory",
        f"# Kafka: {needed.kafka_gib_a_day:,.1f} GiB a day, {needed.kafka_gib:,.0f} GiB on disk"
        f" with {KAFKA_REPLICAS} replicas",
        f"# mesh.yaml: kafka: {{partitions: {needed.partitions}, replication: {KAFKA_REPLICAS}}}",
        *(f"# {line}" for line in needed.beyond),
    ]
    for name in ("importer", "engine", "tracker"):
        low = max(2, math.ceil(needed.replicas[name] / 2))
        lines += [
            f"{name}:",
            f"  replicas: {needed.replicas[name]}",
            f"  autoscaling: {{enabled: true, minReplicas: {low}, maxReplicas: {max(needed.replicas[name], low) * 2}}}",
        ]
    for name in ("joiner", "learner"):
        lines += [f"{name}:", f"  replicas: {needed.replicas[name]}"]
    return "\n".join(lines) + "\n"


def count(text: str) -> int:
    """``10M`` → 10 000 000; k, M and G. Raises ValueError."""
    factor = {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000}.get(text[-1:].lower())
    number = float(text[:-1] if factor else text) * (factor or 1)
    if not 1 <= number < 1e13 or math.isnan(number):
        raise ValueError(f"{text!r} is no count: expected a number such as 25000, 25k or 10M")
    return round(number)
