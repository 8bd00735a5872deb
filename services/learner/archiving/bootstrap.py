"""Builds what archives, beside what learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from banditmesh.archive.pseudonym import pseudonyms
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.serve import Server
from banditmesh.runtime.store import Store
from services.learner.archiving.archiver import Archiver, OpenReader
from services.learner.archiving.decisions import DecisionsFormat, Row
from services.learner.archiving.examples import ExamplesFormat
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.archiving.rows import Chunk
from services.learner.reader import KafkaReader, Known
from services.learner.settings import LearnerSettings

FINAL_FLUSH_S = 15.0


@dataclass(frozen=True)
class Archivers:
    """What was built; None: there is no archive."""

    examples: Archiver[Chunk | None] | None = None
    decisions: Archiver[list[Row]] | None = None
    """None also where no placement samples."""


def archive(
    settings: LearnerSettings, mesh: Mesh, topics: Topics, store: Store, server: Server, ordinal: int
) -> Archivers:
    """Let a server archive the partitions that belong to this replica. Raises ConfigurationError.

    Call it after the store's closing is registered, for what is registered later is stopped first.
    """
    if not mesh.archive.enabled:
        return Archivers()
    metrics = ArchiveMetrics(server.registry)
    user_id, every_s = _user_id(settings, mesh), mesh.archive.flush_every

    def opener(topic: str, name: str) -> OpenReader:
        group = f"{mesh.kafka.topic_prefix}learner-{name}-{ordinal}"

        def open_topic(known: Callable[[Mapping[int, int]], Known]) -> KafkaReader:
            return KafkaReader(
                settings.kafka,
                topic,
                group,
                known,
                mine=lambda partition: partition % settings.replicas == ordinal,
            )

        return open_topic

    examples = Archiver(
        ExamplesFormat(user_id, metrics, join_window_s=mesh.join.window),
        store,
        opener(topics.examples, "archive"),
        server.clock,
        metrics,
        flush_every_s=every_s,
    )
    server.background("archive", examples.run, critical=False)
    decisions = None
    if any(placement.decisions.sample for placement in mesh.placements.values()):
        decisions = Archiver(
            DecisionsFormat(store, user_id, metrics, shown_within_s=mesh.token.max_age),
            store,
            opener(topics.decisions, "archive-decisions"),
            server.clock,
            metrics,
            flush_every_s=every_s,
        )
        server.background("archive of decisions", decisions.run, critical=False)
    # Not of the decisions: most of what waits there waits for examples.
    server.on_stop("archive", examples.close, deadline_s=FINAL_FLUSH_S)
    return Archivers(examples, decisions)


def _user_id(settings: LearnerSettings, mesh: Mesh) -> Callable[[str], str] | None:
    if mesh.archive.user_ids == "plain":
        return None
    if settings.archive_key is None:
        raise ConfigurationError(
            "archive.user_ids is keyed, and there is no key", hint="set BANDITMESH_ARCHIVE_KEY, or user_ids: plain"
        )
    return pseudonyms(settings.archive_key.get_secret_value())
