"""Every metric of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from banditmesh.runtime.metrics import LATENCY_BUCKETS_S

BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
STAGE_BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
STAGES: Final = ("sources", "hydrate", "filters", "features", "score", "draw", "fill", "respond")


class Stopwatch:
    """Times a stage, by ``with``; a third of the cost of prometheus_client's own."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe

    def __enter__(self) -> None:
        self._began_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._observe(time.perf_counter() - self._began_s)


class EngineMetrics:
    """See the help of each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "banditmesh_engine_decisions_total",
            "Decisions by placement and origin (policy, fallback_…); origin none: the slot stayed empty",
            ["placement", "origin", "variant"],
            registry=registry,
        )
        self.no_content = Counter(
            "banditmesh_engine_no_content_total",
            "Slots that stayed empty, by reason",
            ["placement", "reason"],
            registry=registry,
        )
        self.sampled = Counter(
            "banditmesh_engine_sampled_decisions_total",
            "Decisions that were handed to topic decisions, with all their candidates",
            ["placement"],
            registry=registry,
        )
        self.not_sampled = Counter(
            "banditmesh_engine_sampled_decisions_dropped_total",
            "Sampled decisions that were not handed on, by reason: queue (too many at once), kafka, too_large; the "
            "archive has fewer, nothing else happens",
            ["reason"],
            registry=registry,
        )
        self.removed = Counter(
            "banditmesh_engine_candidates_removed_total",
            "Candidates that a filter removed",
            ["placement", "filter"],
            registry=registry,
        )
        self.batch_size = Histogram(
            "banditmesh_engine_batch_size",
            "Requests that were answered together",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.waiting_seconds = Histogram(
            "banditmesh_engine_waiting_seconds",
            "Time that the first request of a batch waited to be taken",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "banditmesh_engine_stage_seconds",
            "Time of a stage for a batch",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        # Looking a label up costs more than observing.
        self._decided: dict[tuple[str, str, str], Counter] = {}
        self._observe = {stage: self.stage_seconds.labels(stage).observe for stage in STAGES}
        self.dropped = Counter(
            "banditmesh_engine_dropped_total",
            "Requests whose caller had gone or whose deadline had passed before their turn; nothing was done for them",
            registry=registry,
        )
        self.refused = Counter(
            "banditmesh_engine_refused_total",
            "Requests that were refused at once: too many wait (full), or so many that it would be too late (late)",
            ["reason"],
            registry=registry,
        )
        self.catalog_size = Gauge(
            "banditmesh_engine_catalog_contents", "Contents in the local catalog", registry=registry
        )
        self.live_contents = Gauge(
            "banditmesh_engine_live_contents",
            "Contents of a service that `retrieve` can propose; far below what the service has, or falling without a "
            "reason, means that the index was not read (see the log)",
            ["service"],
            registry=registry,
        )
        self.catalog_fetched = Counter(
            "banditmesh_engine_catalog_fetched_total",
            "Contents read from Redis, found or absent",
            ["result"],
            registry=registry,
        )
        self.catalog_evicted = Counter(
            "banditmesh_engine_catalog_evicted_total", "Contents that had to make room", registry=registry
        )
        self.unreadable = Counter(
            "banditmesh_engine_unreadable_total",
            "Values in Redis that could not be understood: content, profile, live (pointer), change (stream entry)",
            ["kind"],
            registry=registry,
        )
        self.stream_restarts = Counter(
            "banditmesh_engine_stream_restarts_total",
            "Times that the change stream was followed anew, everything being read again",
            registry=registry,
        )
        self.redis_errors = Counter(
            "banditmesh_engine_redis_errors_total", "Reads of Redis that failed", ["read"], registry=registry
        )
        self.redis_refused = Counter(
            "banditmesh_engine_redis_refused_total",
            "Batches that did not try Redis because most reads of the last second had failed",
            registry=registry,
        )
        self.breaker_open = Gauge(
            "banditmesh_engine_redis_breaker_open", "1 while Redis is taken to be away", registry=registry
        )
        self.model_version = Gauge(
            "banditmesh_engine_model_version",
            "Version of the loaded snapshot; 0: the untrained prior",
            ["placement", "model"],
            registry=registry,
        )
        self.model_published = Gauge(
            "banditmesh_engine_model_published_timestamp_seconds",
            "When the loaded snapshot was published",
            ["placement", "model"],
            registry=registry,
        )
        self.model_refused = Counter(
            "banditmesh_engine_model_refused_total",
            "Snapshots that were not taken, by reason",
            ["placement", "model", "reason"],
            registry=registry,
        )
        self.large_tokens = Counter(
            "banditmesh_engine_large_tokens_total",
            "Impression tokens beyond three quarters of what the tracker takes: leave out crosses",
            ["placement"],
            registry=registry,
        )
        self.model_unread = Counter(
            "banditmesh_engine_model_unread_total",
            "Looks for a newer snapshot that failed: the store is away, or the cache folder is full or not writable",
            ["placement", "model"],
            registry=registry,
        )
        self.variant_stopped = Gauge(
            "banditmesh_engine_variant_stopped",
            "1 while this engine gives a variant no users because a guardrail has stopped it",
            ["placement", "variant"],
            registry=registry,
        )
        self.selections_unwritten = Counter(
            "banditmesh_engine_selections_unwritten_total",
            "Writes of what was selected and stayed empty that failed; the next one writes it all, and until then an "
            "experiment's no_content_rate lags",
            registry=registry,
        )
        self.stops_unread = Counter(
            "banditmesh_engine_stops_unread_total",
            "Looks for stopped variants that failed; what was known stays in force, and a new stop is not seen",
            ["placement"],
            registry=registry,
        )
        self.not_finite = Counter(
            "banditmesh_engine_scores_not_finite_total",
            "Scores that were NaN or infinite and ranked last",
            ["placement", "model"],
            registry=registry,
        )
        self.cached = Counter(
            "banditmesh_engine_cache_total",
            "Users looked up in the recommendation cache: hit, or why not (absent, age, target, model, content, "
            "placement, context). Worry when hits fall: the same answers then cost more CPU",
            ["placement", "result"],
            registry=registry,
        )
        self.cache_unwritten = Counter(
            "banditmesh_engine_cache_unwritten_total",
            "Entries of the recommendation cache that were not written: Redis was slow or away. They are made again",
            registry=registry,
        )
        self.rule_cost = Gauge(
            "banditmesh_engine_rule_cost",
            "Reward that a list would be expected to earn more without the rule (all: without any); about the last "
            "1000 lists that were drawn twice, by the model's own scores: what the fallback fills in is left out, and "
            "quotas that leave room for a pin go on doing so. Below 0 is chance, or a rule that serves the model's aim",
            ["placement", "rule"],
            registry=registry,
        )
        self.features_dropped = Counter(
            "banditmesh_engine_features_dropped_total",
            "Values that could not become a feature (NaN, infinite)",
            ["placement", "field"],
            registry=registry,
        )

    def stage(self, name: str) -> Stopwatch:
        """Times one of :data:`STAGES`."""
        return Stopwatch(self._observe[name])

    def decided(self, placement: str, origin: str, variant: str, count: int) -> None:
        """Count decisions."""
        what = (placement, origin, variant)
        counter = self._decided.get(what)
        if counter is None:
            counter = self._decided[what] = self.decisions.labels(*what)
        counter.inc(count)
