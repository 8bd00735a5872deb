"""Every metric of the learner."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SHARD = ["placement", "model"]
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)


class LearnerMetrics:
    """Ages are left to the reader, as usual: ``time() - banditmesh_learner_…_timestamp_seconds``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.applied = Counter(
            "banditmesh_learner_examples_total", "Examples that a model has learned from", _SHARD, registry=registry
        )
        self.duplicates = Counter(
            "banditmesh_learner_duplicates_total",
            "Examples dropped because their source had been applied",
            _SHARD,
            registry=registry,
        )
        self.dead_letters = Counter(
            "banditmesh_learner_dead_letters_total",
            "Records that could not be understood",
            ["reason"],
            registry=registry,
        )
        self.unknown_placement = Counter(
            "banditmesh_learner_unknown_placement_total",
            "Examples of placements that mesh.yaml does not have",
            registry=registry,
        )
        self.out_of_order = Counter(
            "banditmesh_learner_out_of_order_total",
            "Records of partitions that were no longer waited for, applied late",
            registry=registry,
        )
        self.lost = Counter(
            "banditmesh_learner_lost_offsets_total",
            "Offsets that retention took before they were read",
            registry=registry,
        )
        self.stalled = Gauge(
            "banditmesh_learner_stalled_partitions", "Partitions that are not waited for now", registry=registry
        )
        self.buffered = Gauge(
            "banditmesh_learner_merge_records", "Records that wait for slower partitions", registry=registry
        )
        self.lag = Gauge(
            "banditmesh_learner_lag_records",
            "Offsets between what is read and the end",
            ["partition"],
            registry=registry,
        )
        self.watermark = Gauge(
            "banditmesh_learner_watermark_timestamp_seconds",
            "Broker time before which all examples are learned",
            registry=registry,
        )
        self.learn = Histogram(
            "banditmesh_learner_learn_seconds",
            "Time to learn what became complete together, all models",
            buckets=_SECONDS,
            registry=registry,
        )
        self.publish = Histogram(
            "banditmesh_learner_publish_seconds", "Time to publish a snapshot", buckets=_SECONDS, registry=registry
        )
        self.publish_failures = Counter(
            "banditmesh_learner_publish_failures_total",
            "Snapshots that were not published",
            ["reason"],
            registry=registry,
        )
        self.withheld = Counter(
            "banditmesh_learner_snapshots_withheld_total",
            "Snapshots that were not published, being worse than the one before by learning.validation; worry when it "
            "goes on: the engines have an old model, and something is wrong with the examples or the model",
            [*_SHARD, "metric"],
            registry=registry,
        )
        self.validation = Gauge(
            "banditmesh_learner_validation",
            "How well the newest examples were predicted before they were learned, by metric (reward, log_loss, "
            "calibration), by the model that learns and by the published one",
            [*_SHARD, "metric", "which"],
            registry=registry,
        )
        self.bad_snapshots = Counter(
            "banditmesh_learner_bad_snapshots_total",
            "Snapshots that were refused at the start",
            ["reason"],
            registry=registry,
        )
        self.version = Gauge(
            "banditmesh_learner_snapshot_version", "Version of the newest snapshot", _SHARD, registry=registry
        )
        self.published = Gauge(
            "banditmesh_learner_snapshot_timestamp_seconds",
            "When the newest snapshot was published",
            _SHARD,
            registry=registry,
        )
        self.experiment_sample_ratio = Gauge(
            "banditmesh_learner_experiment_sample_ratio_p",
            "Always valid p-value of the variants' shares of the users; below 0.001 something keeps users away from a "
            "variant, and no other number of the experiment is to be believed",
            ["placement"],
            registry=registry,
        )
        self.experiment_stopped = Gauge(
            "banditmesh_learner_experiment_variant_stopped",
            "1 while a variant is stopped: its users are in the others; look at the report, then resume or remove it",
            ["placement", "variant"],
            registry=registry,
        )
        self.experiment_stops = Counter(
            "banditmesh_learner_experiment_stops_total",
            "Variants that a guardrail has stopped",
            ["placement", "variant", "metric"],
            registry=registry,
        )
        self.experiment_unknown = Gauge(
            "banditmesh_learner_experiment_unknown_impressions",
            "Impressions of variants that the experiment does not have; they grow while a changed mesh.yaml is rolled "
            "out, and if they go on growing, engines and learner have different files",
            ["placement"],
            registry=registry,
        )
        self.experiment_check_failures = Counter(
            "banditmesh_learner_experiment_check_failures_total",
            "Looks at an experiment that failed; guardrails stop nothing while they do",
            ["placement"],
            registry=registry,
        )
        self.density_events = Counter(
            "banditmesh_learner_density_events_total",
            "Impressions (shows) and clicks that a placement's density has taken in. No clicks beside shows means that "
            "tracker or app report none",
            ["placement", "which"],
            registry=registry,
        )
        self.density_lag = Gauge(
            "banditmesh_learner_density_lag_records",
            "Offsets between what the densities have read of clicks or shows, and the end; growing means that what is "
            "hot is old news",
            ["which"],
            registry=registry,
        )
        self.density_contents = Gauge(
            "banditmesh_learner_density_contents",
            "Contents that a placement's density keeps sums of; at `density.contents` those shown least make room",
            ["placement"],
            registry=registry,
        )
