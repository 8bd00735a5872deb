"""Metrics of the streams of a process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class StreamMetricsFamily:
    """Every metric of a stream, by the stream's name. One a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ["stream"]
        self.partitions = Gauge(
            "banditmesh_stream_partitions", "Partitions assigned to this process", names, registry=registry
        )
        self.records = Counter(
            "banditmesh_stream_records_total", "Records that processors took", names, registry=registry
        )
        self.stale = Counter(
            "banditmesh_stream_stale_records_total",
            "Fetched records left out: from before a seek",
            names,
            registry=registry,
        )
        self.lost = Counter(
            "banditmesh_stream_lost_records_total",
            "Offsets that retention deleted before they were read",
            names,
            registry=registry,
        )
        self.fenced = Counter(
            "banditmesh_stream_fenced_total", "Processors fenced by another owner", names, registry=registry
        )
        self.restarts = Counter(
            "banditmesh_stream_restarts_total",
            "Partitions opened anew, or memberships begun anew",
            [*names, "reason"],
            registry=registry,
        )

    def stream(self, name: str) -> StreamMetrics:
        """The metrics of one stream."""
        return StreamMetrics(self, name)


class StreamMetrics:
    """Metrics of one stream with their labels resolved."""

    def __init__(self, family: StreamMetricsFamily, name: str) -> None:
        self.partitions = family.partitions.labels(stream=name)
        self.stale = family.stale.labels(stream=name)
        self.lost = family.lost.labels(stream=name)
        self.fenced = family.fenced.labels(stream=name)
        self.restarts = _Restarts(family.restarts, name)
        self.records = family.records.labels(stream=name)


class _Restarts:
    def __init__(self, counter: Counter, name: str) -> None:
        self._counter = counter
        self._name = name

    def labels(self, *, reason: str) -> Counter:
        return self._counter.labels(stream=self._name, reason=reason)
