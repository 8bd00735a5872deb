"""Every metric of the tracker."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from banditmesh.runtime.kafka.producer import Producer
from banditmesh.runtime.metrics import LATENCY_BUCKETS_S, watch

KEYLESS = "unknown"
"""Label of tokens that name no key of ours: the number in them is whatever their sender wrote."""


class TrackerMetrics:
    """What is counted and measured."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "banditmesh_tracker_events_total",
            "Events that were answered, by kind (none: the event has no kind) and status",
            ["kind", "status"],
            registry=registry,
        )
        self.tokens = Counter(
            "banditmesh_tracker_tokens_total",
            "Impression tokens that were checked, by the number of their key and the result; "
            "a key whose counter stands still may leave the ring",
            ["key", "result"],
            registry=registry,
        )
        self.unacknowledged = Counter(
            "banditmesh_tracker_unacknowledged_events_total",
            "Events in requests that were answered UNAVAILABLE because Kafka did not acknowledge them all",
            registry=registry,
        )
        self.ack_seconds = Histogram(
            "banditmesh_tracker_kafka_ack_seconds",
            "Time from handing the events of a request to Kafka until all of them were acknowledged",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.waiting_records = Gauge(
            "banditmesh_tracker_waiting_records", "Events sent to Kafka and not acknowledged", registry=registry
        )
        self.waiting_bytes = Gauge(
            "banditmesh_tracker_waiting_bytes", "Memory of the events that are waiting for Kafka", registry=registry
        )

    def watch_producer(self, producer: Producer) -> None:
        """Read the gauges from the producer whenever somebody looks at them."""
        watch(self.waiting_records, producer, lambda watched: watched.records_in_flight)
        watch(self.waiting_bytes, producer, lambda watched: watched.bytes_in_flight)
