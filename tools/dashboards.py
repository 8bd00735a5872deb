"""Writes the chart's Grafana dashboards: ``make chart``. A dashboard is a title and its panels, a panel a title, a unit and its
queries; where things stand and how they look is the same for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "helm" / "banditmesh" / "files" / "dashboards"
WIDTH, HEIGHT = 8, 8
ENGINE_METHODS = (
    'method=~"/banditmesh.crs_engine.v1.CrsEngineService/(SelectContent|BatchSelectContents|RecommendContents)"'
)
MESH = 'mesh=~"$mesh"'


class Panel(NamedTuple):
    """``queries``: (expression, legend); ``$M`` in an expression becomes the filter for the chosen meshes."""

    title: str
    unit: str
    queries: list[tuple[str, str]]


def quantile(share: float, metric: str, labels: str = "", by: str = "") -> str:
    """A quantile of a histogram over five minutes."""
    matchers = ", ".join(filter(None, (MESH, labels)))
    groups = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({groups}) (rate({metric}_bucket{{{matchers}}}[5m])))"


def per_second(metric: str, by: str, labels: str = "") -> tuple[str, str]:
    """The rate of a counter, a line for each value of ``by``."""
    matchers = ", ".join(filter(None, (MESH, labels)))
    legend = " ".join(f"{{{{{name.strip()}}}}}" for name in by.split(","))
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[5m]))", legend


def gauge(metric: str, by: str, how: str = "sum") -> tuple[str, str]:
    """A gauge, a line for each value of ``by``."""
    legend = " ".join(f"{{{{{name.strip()}}}}}" for name in by.split(","))
    return f"{how} by ({by}) ({metric}{{{MESH}}})", legend


def age(metric: str, by: str) -> tuple[str, str]:
    """Seconds since the time that a gauge has."""
    expression, legend = gauge(metric, by, "max")
    return f"time() - ({expression} > 0)", legend


BOARDS: dict[str, tuple[str, list[Panel]]] = {
    "overview": (
        "The loop",
        [
            Panel("Selections", "reqps", [per_second("banditmesh_engine_decisions_total", "placement")]),
            Panel("Where they come from", "reqps", [per_second("banditmesh_engine_decisions_total", "origin")]),
            Panel(
                "Time of a call, p50 and p99",
                "s",
                [
                    (quantile(0.5, "banditmesh_grpc_request_seconds", ENGINE_METHODS), "p50"),
                    (quantile(0.99, "banditmesh_grpc_request_seconds", ENGINE_METHODS), "p99"),
                ],
            ),
            Panel("Events by kind and status", "reqps", [per_second("banditmesh_tracker_events_total", "kind, status")]),
            Panel("Examples by outcome", "reqps", [per_second("banditmesh_joiner_examples_total", "outcome")]),
            Panel("Age of the models in the engines", "s", [age("banditmesh_engine_model_published_timestamp_seconds", "placement, model")]),
            Panel("Servers that answer (1) or not (0)", "none", [gauge("banditmesh_dependency_up", "component, dependency", "min")]),
            Panel("Calls that failed, by code", "reqps", [per_second("banditmesh_grpc_requests_total", "component, code", 'code!="OK"')]),
            Panel("CPU of a process", "percentunit", [per_second("process_cpu_seconds_total", "component, pod")]),
            Panel("Memory of a process", "bytes", [gauge("process_resident_memory_bytes", "component, pod")]),
            Panel("Background tasks that crashed", "short", [(f"sum by (component, task) (increase(banditmesh_task_crashes_total{{{MESH}}}[15m]))", "{{component}} {{task}}")]),
            Panel("Calls being answered", "short", [gauge("banditmesh_grpc_in_flight", "component")]),
        ],
    ),
    "engine": (
        "CRS Engine",
        [
            Panel("Time of each stage, p99", "s", [(quantile(0.99, "banditmesh_engine_stage_seconds", by="stage"), "{{stage}}")]),
            Panel("Waiting for a batch, p99", "s", [(quantile(0.99, "banditmesh_engine_waiting_seconds"), "p99")]),
            Panel("Selections in a batch, p50", "short", [(quantile(0.5, "banditmesh_engine_batch_size"), "p50")]),
            Panel("Empty slots by reason", "reqps", [per_second("banditmesh_engine_no_content_total", "placement, reason")]),
            Panel("Candidates removed, by filter", "reqps", [per_second("banditmesh_engine_candidates_removed_total", "filter")]),
            Panel("Decisions by variant", "reqps", [per_second("banditmesh_engine_decisions_total", "placement, variant")]),
            Panel("Reward that lists lose to each rule", "none", [gauge("banditmesh_engine_rule_cost", "placement, rule", "avg")]),
            Panel("Contents in the catalog", "short", [gauge("banditmesh_engine_catalog_contents", "pod")]),
            Panel("Contents to retrieve from", "short", [gauge("banditmesh_engine_live_contents", "service", "min")]),
            Panel("Contents fetched and evicted", "reqps", [per_second("banditmesh_engine_catalog_fetched_total", "pod"), per_second("banditmesh_engine_catalog_evicted_total", "pod")]),
            Panel("Redis: errors, and batches that did not try", "reqps", [per_second("banditmesh_engine_redis_errors_total", "read"), per_second("banditmesh_engine_redis_refused_total", "pod")]),
            Panel("Version of the loaded model", "short", [gauge("banditmesh_engine_model_version", "placement, model", "min")]),
            Panel("Snapshots refused", "short", [per_second("banditmesh_engine_model_refused_total", "placement, model, reason")]),
            Panel("Scores that were not finite, values that could not be read", "reqps", [per_second("banditmesh_engine_scores_not_finite_total", "placement, model"), per_second("banditmesh_engine_unreadable_total", "kind")]),
        ],
    ),
    "stream": (
        "Tracker and joiner",
        [
            Panel("Tokens by result", "reqps", [per_second("banditmesh_tracker_tokens_total", "result")]),
            Panel("Kafka's acknowledgement, p99", "s", [(quantile(0.99, "banditmesh_tracker_kafka_ack_seconds"), "p99")]),
            Panel("Events that wait for Kafka", "bytes", [gauge("banditmesh_tracker_waiting_bytes", "pod")]),
            Panel("Events that Kafka did not acknowledge", "reqps", [per_second("banditmesh_tracker_unacknowledged_events_total", "pod")]),
            Panel("Impressions that are not closed", "short", [gauge("banditmesh_joiner_impressions_lag_records", "partition")]),
            Panel("Reactions that are not stored", "short", [gauge("banditmesh_joiner_reactions_lag_records", "partition")]),
            Panel("Age of the watermark", "s", [gauge("banditmesh_joiner_watermark_age_seconds", "partition", "max")]),
            Panel("Partitions of a process", "short", [gauge("banditmesh_stream_partitions", "pod, stream")]),
            Panel("Partitions opened anew, owners fenced", "short", [per_second("banditmesh_stream_restarts_total", "stream, reason"), per_second("banditmesh_stream_fenced_total", "stream")]),
            Panel("Duplicates and late reactions", "reqps", [per_second("banditmesh_joiner_duplicates_total", "kind"), per_second("banditmesh_joiner_late_reactions_total", "pod")]),
            Panel("Dead letters", "reqps", [per_second("banditmesh_joiner_dead_letters_total", "reason")]),
            Panel("Records lost to retention", "short", [per_second("banditmesh_stream_lost_records_total", "stream")]),
        ],
    ),
    "learning": (
        "Learning and experiments",
        [
            Panel("Examples learned", "reqps", [per_second("banditmesh_learner_examples_total", "placement, model")]),
            Panel("Examples not read yet", "short", [gauge("banditmesh_learner_lag_records", "partition")]),
            Panel("Age of what is learned", "s", [age("banditmesh_learner_watermark_timestamp_seconds", "pod")]),
            Panel("Age of the newest snapshot", "s", [age("banditmesh_learner_snapshot_timestamp_seconds", "placement, model")]),
            Panel("Time of a learning step, p99", "s", [(quantile(0.99, "banditmesh_learner_learn_seconds"), "p99")]),
            Panel("Time to publish, p99", "s", [(quantile(0.99, "banditmesh_learner_publish_seconds"), "p99")]),
            Panel("Snapshots not published", "short", [per_second("banditmesh_learner_publish_failures_total", "reason")]),
            Panel("Partitions that are not waited for", "short", [gauge("banditmesh_learner_stalled_partitions", "pod")]),
            Panel("Records that wait for slower partitions", "short", [gauge("banditmesh_learner_merge_records", "pod")]),
            Panel("Share of users of each variant", "percentunit", [("sum by (placement, variant) (rate(banditmesh_engine_decisions_total{mesh=~\"$mesh\"}[1h])) / ignoring (variant) group_left sum by (placement) (rate(banditmesh_engine_decisions_total{mesh=~\"$mesh\"}[1h]))", "{{placement}} {{variant}}")]),
            Panel("Variants that a guardrail has stopped (1)", "none", [gauge("banditmesh_learner_experiment_variant_stopped", "placement, variant", "max"), gauge("banditmesh_engine_variant_stopped", "placement, variant", "min")]),
            Panel("Sample ratio: p (below 0.001: believe nothing)", "none", [gauge("banditmesh_learner_experiment_sample_ratio_p", "placement", "min")]),
            Panel("Impressions of unknown variants, looks that failed", "short", [gauge("banditmesh_learner_experiment_unknown_impressions", "placement", "max"), per_second("banditmesh_learner_experiment_check_failures_total", "placement"), per_second("banditmesh_engine_stops_unread_total", "placement")]),
            Panel("Outcomes", "percentunit", [("sum by (outcome) (rate(banditmesh_joiner_examples_total{mesh=~\"$mesh\"}[15m])) / ignoring (outcome) group_left sum (rate(banditmesh_joiner_examples_total{mesh=~\"$mesh\"}[15m]))", "{{outcome}}")]),
            Panel("Rows archived", "rowsps", [per_second("banditmesh_learner_archived_rows_total", "kind, placement")]),
            Panel("Age of the newest row in the archive", "s", [age("banditmesh_learner_archived_until_timestamp_seconds", "kind")]),
            Panel("Archive: attempts that failed, offsets lost, rows that wait", "short", [per_second("banditmesh_learner_archive_failures_total", "kind, reason"), per_second("banditmesh_learner_archive_lost_offsets_total", "kind"), gauge("banditmesh_learner_archive_waiting_rows", "kind")]),
            Panel("Dead letters and unknown placements", "reqps", [per_second("banditmesh_learner_dead_letters_total", "reason"), per_second("banditmesh_learner_unknown_placement_total", "pod")]),
        ],
    ),
    "imports": (
        "Imports",
        [
            Panel("Jobs that run", "short", [gauge("banditmesh_importer_jobs_running", "pod")]),
            Panel("Jobs that ended", "short", [(f"sum by (kind, state, reason) (increase(banditmesh_importer_jobs_ended_total{{{MESH}}}[1h]))", "{{kind}} {{state}} {{reason}}")]),
            Panel("Time of a job, p50", "s", [(quantile(0.5, "banditmesh_importer_job_seconds", by="kind"), "{{kind}}")]),
            Panel("Rows", "rowsps", [per_second("banditmesh_importer_rows_total", "kind")]),
            Panel("Rows left out", "rowsps", [per_second("banditmesh_importer_rejected_rows_total", "kind, reason")]),
            Panel("Age of what is live", "s", [age("banditmesh_importer_live_timestamp_seconds", "source")]),
            Panel("Calls of Data Providers", "reqps", [per_second("banditmesh_importer_provider_calls_total", "service, code")]),
            Panel("Their time, p99", "s", [(quantile(0.99, "banditmesh_importer_provider_seconds", by="service"), "{{service}}")]),
            Panel("Contents by outcome", "reqps", [per_second("banditmesh_importer_contents_total", "service, outcome"), per_second("banditmesh_importer_rejected_contents_total", "service, reason")]),
            Panel("Refreshes", "short", [per_second("banditmesh_importer_refreshes_total", "service, outcome")]),
            Panel("Jobs taken over, leases lost", "short", [per_second("banditmesh_importer_jobs_resumed_total", "pod"), per_second("banditmesh_importer_leases_lost_total", "pod")]),
        ],
    ),
}  # fmt: skip


def dashboard(name: str) -> dict[str, Any]:
    """The JSON of one dashboard."""
    title, panels = BOARDS[name]
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "uid": f"banditmesh-{name}",
        "title": f"banditmesh: {title}",
        "tags": ["banditmesh"],
        "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "mesh",
                    "type": "query",
                    "datasource": source,
                    "query": "label_values(banditmesh_dependency_up, mesh)",
                    "includeAll": True,
                    "allValue": ".*",
                    "refresh": 2,
                },
            ]
        },
        "panels": [
            {
                "id": index + 1,
                "type": "timeseries",
                "title": panel.title,
                "datasource": source,
                "gridPos": {"x": index % 3 * WIDTH, "y": index // 3 * HEIGHT, "w": WIDTH, "h": HEIGHT},
                "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
                    for number, (expression, legend) in enumerate(panel.queries)
                ],
            }
            for index, panel in enumerate(panels)
        ],
    }


def written() -> dict[Path, str]:
    """The text of each file."""
    return {FOLDER / f"{name}.json": json.dumps(dashboard(name), indent=1) + "\n" for name in BOARDS}


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text)
