"""The columns of archived examples.

A reader of today reads files of yesterday (columns that they lack are null) and of tomorrow (columns that it does not
know are passed over): `conform`. So a column may be added; none is renamed, removed or given another type.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

VERSION: Final = 1
"""Of the columns' meaning; grows with each that is added."""
VERSION_KEY: Final = b"banditmesh.schema"
"""In the metadata of each file."""

_TIME: Final = pa.timestamp("ms", "UTC")


def _column(name: str, kind: pa.DataType, says: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": says})


EXAMPLES: Final = pa.schema(
    [
        _column("impression_time", _TIME, "When it was shown, by the broker's clock; the path's day and hour are its."),
        _column("user", pa.string(), "The user; a pseudonym with archive.user_ids: keyed."),
        _column("service", pa.string(), "The service that owns the content."),
        _column("content", pa.string(), "The content that was shown."),
        _column("logic", pa.string(), "The service's logic that proposed it; empty: the placement's fallback did."),
        _column("position", pa.int32(), "0 for the first content of a ranked list, or for the only one."),
        _column("variant", pa.string(), "The experiment variant that the user was in."),
        _column("model", pa.string(), "The model that scored, <policy>-<digest>; empty when none did."),
        _column("model_version", pa.int64(), "Version of the model's snapshot; 0: the untrained prior, or none."),
        _column("propensity", pa.float32(), "The probability with which it was chosen; null when it is not known."),
        _column("origin", pa.string(), "policy, fallback_no_candidates or fallback_store_unavailable."),
        _column("feature_ids", pa.list_(pa.int64()), "Hashed features that the model saw."),
        _column("feature_values", pa.list_(pa.float32()), "One for each id; null: all are 1."),
        _column("outcome", pa.string(), "The strongest reaction: none, click, mute, target, dwell."),
        _column("target", pa.string(), "The target action's name where the outcome is target, else null."),
        _column("reward", pa.float32(), "The outcome's reward by the placement's configuration at that time."),
        _column("reactions", pa.list_(pa.string()), "Every kind of reaction that came within the window."),
        _column("reaction_time", _TIME, "The strongest reaction's broker time; null when there was none."),
        _column("decided_at", _TIME, "When the engine decided, by its own clock."),
        _column("impression_id", pa.binary(), "16 random bytes that name the impression everywhere."),
        _column("example_time", _TIME, "Broker time of the example itself; never falls within a partition."),
        _column("example_log", pa.int64(), "Which topic `examples` it was: another number after it was made anew."),
        _column("example_partition", pa.int32(), "Partition of topic `examples`."),
        _column("example_offset", pa.int64(), "Offset there. Log, partition and offset name a row once and for ever."),
        _column("source_log", pa.int64(), "Which topic `impressions` it was; 0: not said."),
        _column("source_partition", pa.int32(), "Partition of topic `impressions`."),
        _column("source_offset", pa.int64(), "Offset there."),
    ],
    metadata={VERSION_KEY: str(VERSION).encode()},
)

RULES: Final = pa.list_(
    pa.struct(
        [
            ("rule", pa.string()),
            ("adds", pa.list_(pa.int32())),
            ("drops", pa.list_(pa.int32())),
            ("shifts", pa.list_(pa.float32())),
            ("shares", pa.list_(pa.float32())),
        ]
    )
)
"""Column `rules` of sampled decisions; null where the engine did not say what rules did."""
TIME_COLUMN: Final = {"examples": "impression_time", "decisions": "t"}
"""The column that decides the folder of a row."""
OFFSET_COLUMNS: Final = {
    "examples": ("example_log", "example_partition", "example_offset"),
    "decisions": ("decision_log", "decision_partition", "decision_offset"),
}
"""Where a row stands in its topic."""


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the schema's columns: what it lacks is null, what it has beyond is left out."""
    columns = []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        columns.append(pa.nulls(len(batch), field.type) if at < 0 else batch.column(at).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
