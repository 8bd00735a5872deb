"""Every metric of the archive."""

from __future__ import annotations

import pyarrow as pa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class ArchiveMetrics:
    """``kind`` is examples or decisions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rows = Counter(
            "banditmesh_learner_archived_rows_total", "Rows written", ["kind", "placement"], registry=registry
        )
        self.files = Counter("banditmesh_learner_archived_files_total", "Files written", ["kind"], registry=registry)
        self.bytes = Counter(
            "banditmesh_learner_archived_bytes_total", "Bytes of these files", ["kind"], registry=registry
        )
        self.until = Gauge(
            "banditmesh_learner_archived_until_timestamp_seconds",
            "Broker time up to which a partition is archived; worry when it stays behind now by much more than "
            "archive.flush_every, and act before the topic's retention overtakes it",
            ["kind", "partition"],
            registry=registry,
        )
        self.waiting = Gauge(
            "banditmesh_learner_archive_waiting_rows", "Rows in memory, after a flush", ["kind"], registry=registry
        )
        self.memory = Gauge(
            "banditmesh_learner_archive_memory_bytes",
            "Bytes of rows that wait and of files that are being written; falls to nearly 0 with each flush",
            registry=registry,
        )
        self.memory.set_function(pa.total_allocated_bytes)
        self.lost = Counter(
            "banditmesh_learner_archive_lost_offsets_total",
            "Offsets that retention took before they were archived; any is a loss",
            ["kind"],
            registry=registry,
        )
        self.failures = Counter(
            "banditmesh_learner_archive_failures_total",
            "Attempts that had to begin again; worry when it goes on",
            ["kind", "reason"],
            registry=registry,
        )
        self.passed_over = Counter(
            "banditmesh_learner_archive_passed_over_total",
            "Records that make no row: unreadable, duplicate; of decisions also never shown",
            ["kind", "reason"],
            registry=registry,
        )
        self.write = Histogram(
            "banditmesh_learner_archive_write_seconds",
            "Time to encode and store a file",
            buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0),
            registry=registry,
        )
