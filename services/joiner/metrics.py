"""Every metric of the joiner."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class JoinerMetrics:
    """Counters count what this process did; work that is done again after a crash is counted again."""

    def __init__(self, registry: CollectorRegistry) -> None:
        partition = ["partition"]
        self.examples = Counter(
            "banditmesh_joiner_examples_total", "Examples written, by outcome", ["outcome"], registry=registry
        )
        self.reactions = Counter(
            "banditmesh_joiner_reactions_total", "First reactions of their kind stored", registry=registry
        )
        self.duplicates = Counter(
            "banditmesh_joiner_duplicates_total",
            "Records left out because the same one came before (impression, reaction)",
            ["kind"],
            registry=registry,
        )
        self.late = Counter(
            "banditmesh_joiner_late_reactions_total",
            "Reactions that came too late for their impression",
            registry=registry,
        )
        self.dead_letters = Counter(
            "banditmesh_joiner_dead_letters_total", "Records given up on, by reason", ["reason"], registry=registry
        )
        self.redo = Counter(
            "banditmesh_joiner_redone_impressions_total",
            "Impressions closed again after a crash or a fence",
            registry=registry,
        )
        self.unknown_placements = Counter(
            "banditmesh_joiner_unknown_placements_total",
            "Examples with default rewards because mesh.yaml does not know the placement",
            registry=registry,
        )
        self.transactions = Counter(
            "banditmesh_joiner_transactions_total", "Kafka transactions committed", registry=registry
        )
        self.record_conflicts = Counter(
            "banditmesh_joiner_record_conflicts_total",
            "User records read again because another writer was faster; a few are normal, two streams write them",
            registry=registry,
        )
        self.progress_lost = Counter(
            "banditmesh_joiner_progress_lost_total",
            "Partitions opened without progress in Redis: normal at the first start; else Redis has lost data",
            ["stream"],
            registry=registry,
        )
        self.marked_again = Counter(
            "banditmesh_joiner_marks_restored_total",
            "Impressions whose closed mark was written again because Redis had lost it; not 0: Redis has lost data",
            registry=registry,
        )
        self.reactions_lost = Counter(
            "banditmesh_joiner_reactions_lost_total",
            "Impressions whose reactions were read again because Redis had lost them; not 0: Redis evicts keys",
            registry=registry,
        )
        self.unknown_kinds = Counter(
            "banditmesh_joiner_unknown_kinds_total",
            "Reactions of kinds that a newer release knows; normal while one is rolled out, else update the joiner",
            registry=registry,
        )
        self.clipped = Counter(
            "banditmesh_joiner_clipped_rewards_total",
            "Examples whose reward was clipped to the placement's rewards.cap; many: a client sends wrong weights",
            ["placement"],
            registry=registry,
        )
        self.shown = Counter(
            "banditmesh_joiner_shown_total", "Impressions brought into users' records", registry=registry
        )
        self.shown_lag = Gauge(
            "banditmesh_joiner_shown_lag_records",
            "Impressions that are not in users' records yet",
            partition,
            registry=registry,
        )
        self.impressions_lag = Gauge(
            "banditmesh_joiner_impressions_lag_records",
            "Impressions that are not closed yet",
            partition,
            registry=registry,
        )
        self.reactions_lag = Gauge(
            "banditmesh_joiner_reactions_lag_records", "Reactions that are not stored yet", partition, registry=registry
        )
        self.watermark_age = Gauge(
            "banditmesh_joiner_watermark_age_seconds",
            "How old the newest stored reaction or tick is",
            partition,
            registry=registry,
        )
