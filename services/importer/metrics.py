"""Every metric of the Importer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 7200)


class ImporterMetrics:
    """Names begin with ``banditmesh_importer_``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "banditmesh_importer"
        self.jobs_running = Gauge(f"{prefix}_jobs_running", "Import jobs that this process works on", registry=registry)
        self.jobs_ended = Counter(
            f"{prefix}_jobs_ended_total",
            "Import jobs that this process ended; reason is empty but for failed ones",
            ["kind", "state", "reason"],
            registry=registry,
        )
        self.jobs_resumed = Counter(
            f"{prefix}_jobs_resumed_total", "Jobs taken up again after another importer left them", registry=registry
        )
        self.leases_lost = Counter(
            f"{prefix}_leases_lost_total", "Jobs given up because the lease had run out", registry=registry
        )
        self.job_seconds = Histogram(
            f"{prefix}_job_seconds",
            "Time from taking a job up to its end",
            ["kind"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.rows = Counter(f"{prefix}_rows_total", "Rows read, rejected ones included", ["kind"], registry=registry)
        self.rejected_rows = Counter(
            f"{prefix}_rejected_rows_total", "Rows left out", ["kind", "reason"], registry=registry
        )
        self.warnings = Counter(
            f"{prefix}_warnings_total",
            "What was not as it should be and cost no row, such as duplicate_user; see the job's warnings",
            ["kind", "reason"],
            registry=registry,
        )
        self.live_version = Gauge(
            f"{prefix}_live_timestamp_seconds",
            "When this process last made a version live, Unix time",
            ["source"],
            registry=registry,
        )
        self.live_ends = Gauge(
            f"{prefix}_live_ends_timestamp_seconds",
            "When the live version of a source expires unless it is notified again, Unix time; 0: it has none. Worry "
            "when it is less than a day ahead",
            ["source"],
            registry=registry,
        )
        self.provider_calls = Counter(
            f"{prefix}_provider_calls_total",
            "GetContents calls by their status",
            ["service", "code"],
            registry=registry,
        )
        self.provider_seconds = Histogram(
            f"{prefix}_provider_seconds", "Time of GetContents calls that succeeded", ["service"], registry=registry
        )
        self.contents = Counter(
            f"{prefix}_contents_total",
            "Contents from providers: changed (or new), same, missing, kept (left out by the provider, with so many "
            "others that it is taken to be broken)",
            ["service", "outcome"],
            registry=registry,
        )
        self.without_vector = Counter(
            f"{prefix}_contents_without_vector_total",
            "Contents that were stored without a vector where mesh.yaml has `vectors`: no model that goes by likeness "
            "proposes them. Rising beside contents_total means that the text model is missing",
            registry=registry,
        )
        self.text_model_failures = Counter(
            f"{prefix}_text_model_failures_total",
            "Times that the text model could not be loaded; the one before serves, if there was one",
            registry=registry,
        )
        self.rejected_contents = Counter(
            f"{prefix}_rejected_contents_total",
            "Contents that a provider returned and that were ignored",
            ["service", "reason"],
            registry=registry,
        )
        self.refreshes = Counter(
            f"{prefix}_refreshes_total",
            "Refreshes of a service's contents: succeeded, failed, held_back (more was missing than "
            "refresh_max_missing, so all stays as it was: look at the provider)",
            ["service", "outcome"],
            registry=registry,
        )
