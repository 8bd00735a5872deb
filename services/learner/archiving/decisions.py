"""Topic ``decisions`` as the archive takes it: as rows of a decision log, with what became of each.

A decision waits until everything that could become of it is archived: until the impression token is too old to be
tracked, and the joiner is a window behind that. What came of it is then looked up among the archived examples of the
same partition, for both topics are keyed by the user. So what a row says depends on the two topics alone, and there is
nothing to remember between two processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import pyarrow as pa
from google.protobuf.message import DecodeError

from banditmesh.archive.layout import HOUR, Folder, Kind
from banditmesh.archive.reader import read
from banditmesh.archive.schema import RULES
from banditmesh.archive.state import Mark, States
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.store import Store
from banditmesh.runtime.stream import Consumed
from services.learner.archiving.archiver import Piece
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.archiving.rows import HOUR_MS, ORIGINS
from services.learner.decision_checks import MOST_INT32, check_decision
from services.learner.examples import MOST_SKEW_MS

log = get_logger(__name__)

SKEW_S: Final = 60.0
"""How much the clocks of engine, tracker and broker may differ."""
_SPREAD_MS: Final = 60_000
"""Of one piece: it waits for its youngest decision."""
_LOOKED_UP: Final = ("impression_id", "impression_time", "outcome", "target", "reward", "reactions", "reaction_time")
_TIME: Final = pa.timestamp("ms", "UTC")

Row = tuple[int, events_pb2.SampledDecision]
"""Offset, and what stands there."""


class Became(NamedTuple):
    """What came of a decision that was shown."""

    impression_time: datetime
    outcome: str
    target: str | None
    reward: float
    reactions: list[str]
    reaction_time: datetime | None


class DecisionsFormat:
    """See `archiver.Format`."""

    kind: Kind = "decisions"

    def __init__(
        self,
        store: Store,
        user_id: Callable[[str], str] | None,
        metrics: ArchiveMetrics,
        *,
        shown_within_s: float,
    ) -> None:
        """
        Args:
            user_id: What stands for a user; None: the user's own id.
            shown_within_s: How long after a decision it can be tracked that it was shown.
        """
        self._store = store
        self._user_id = user_id
        self._metrics = metrics
        self._shown_within = timedelta(seconds=shown_within_s + SKEW_S)

    def pieces(self, records: Sequence[Consumed], log: int, mark: Mark) -> list[Piece[list[Row]]]:
        """See `archiver.Format`."""
        made: list[Piece[list[Row]]] = []
        rows: list[Row] = []
        time_ms, size = mark.time_ms, 0
        for number, record in enumerate(records):
            time_ms = max(time_ms, record.time_ms)
            size += len(record.value)
            try:
                rows.append((record.offset, _decoded(record.value, record.time_ms)))
            except (ValueError, Unreadable) as error:
                self._metrics.passed_over.labels(self.kind, "unreadable").inc()
                _say(record, error)
            following = records[number + 1] if number + 1 < len(records) else None
            if following is None or following.time_ms > records[0].time_ms + _SPREAD_MS * (len(made) + 1):
                made.append(Piece(record.offset + 1, Mark(time_ms), len(rows), size, rows))
                rows, size = [], 0
        return made

    def merged(self, first: Piece[list[Row]], second: Piece[list[Row]]) -> None:
        """See `archiver.Format`: each is written when it is known what became of its decisions."""

    async def until_ms(self) -> Callable[[int], float]:
        """See `archiver.Format`."""
        shown_ms: dict[int, int] = {}
        for (_, partition), state in (await States(self._store, "examples").all()).items():
            shown_ms[partition] = max(shown_ms.get(partition, 0), state.mark.shown_ms)
        within_ms = self._shown_within.total_seconds() * 1000
        return lambda partition: shown_ms.get(partition, 0) - within_ms

    async def tables(
        self, pieces: Sequence[Piece[list[Row]]], log: int, partition: int
    ) -> list[tuple[Folder, pa.Table]]:
        """See `archiver.Format`."""
        of_placement: dict[str, list[Row]] = defaultdict(list)
        for piece in pieces:
            for row in piece.body:
                of_placement[row[1].decision.placement].append(row)
        found: list[tuple[Folder, pa.Table]] = []
        for placement, rows in of_placement.items():
            became = await self._became(placement, partition, rows)
            of_hour: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for offset, sampled in rows:
                then = became.get(sampled.decision.impression_id)
                if then is None:
                    self._metrics.passed_over.labels(self.kind, "never_shown").inc()
                    continue
                made = self._row(sampled, then) | {
                    "decision_log": log,
                    "decision_partition": partition,
                    "decision_offset": offset,
                }
                of_hour[sampled.decision.decided_at_ms // HOUR_MS].append(made)
            for hour, of_this in sorted(of_hour.items()):
                folder = Folder(self.kind, placement, datetime.fromtimestamp(hour * HOUR_MS // 1000, UTC))
                found.append((folder, _table(of_this)))
        return found

    async def _became(self, placement: str, partition: int, rows: Sequence[Row]) -> Mapping[bytes, Became]:
        """What came of those that were shown, by impression id."""
        wanted = {sampled.decision.impression_id for _, sampled in rows}
        times_ms = [sampled.decision.decided_at_ms for _, sampled in rows]
        start = datetime.fromtimestamp(min(times_ms) / 1000, UTC) - timedelta(seconds=SKEW_S)
        end = datetime.fromtimestamp(max(times_ms) / 1000, UTC) + self._shown_within + HOUR
        found: dict[bytes, Became] = {}
        async for batch in read(self._store, placement, start, end, columns=_LOOKED_UP, partition=partition):
            ids = batch.column("impression_id").to_pylist()
            hits = [at for at, each in enumerate(ids) if each in wanted]
            for row in batch.take(pa.array(hits, pa.int64())).to_pylist():
                impression_id = row.pop("impression_id")
                found[impression_id] = Became(**row)
        return found

    def _row(self, sampled: events_pb2.SampledDecision, then: Became) -> dict[str, Any]:
        decision = sampled.decision
        return {
            "t": decision.decided_at_ms,
            "user": decision.user_id if self._user_id is None else self._user_id(decision.user_id),
            "context": _features(sampled.context),
            "candidates": [_candidate(each) for each in sampled.candidates],
            "barred": [_candidate(each) for each in sampled.barred],
            "rules": None if sampled.schema_version < _SAYS_RULES else [_effect(each) for each in sampled.rules],
            "shown": sampled.chosen,
            "propensity": decision.propensity,
            "reward": then.reward,
            "outcome": then.outcome,
            "target": then.target,
            "reactions": then.reactions,
            "impression_time": then.impression_time,
            "reaction_time": then.reaction_time,
            "position": decision.position,
            "variant": decision.variant,
            "model": decision.model,
            "model_version": decision.model_version,
            "origin": ORIGINS.get(decision.origin, "unspecified"),
            "sample": sampled.sample,
            "impression_id": decision.impression_id,
        }


def _candidate(each: events_pb2.SampledCandidate) -> dict[str, Any]:
    return {
        "id": each.content_id,
        "service": each.service,
        "logic": each.logic,
        "features": _features(each.features),
        "score": each.score,
        "deviation": each.deviation,
        "propensity": each.propensity,
    }


def _effect(each: events_pb2.RuleEffect) -> dict[str, Any]:
    return {
        "rule": each.rule,
        "adds": list(each.adds),
        "drops": list(each.drops),
        "shifts": list(each.shifts),
        "shares": list(each.shares),
    }


_SAYS_RULES: Final = 2
"""From which version on a record says what rules did."""
_TYPES: Final[Mapping[str, pa.DataType]] = {
    "t": _TIME,
    "user": pa.string(),
    "shown": pa.int32(),
    "propensity": pa.float64(),
    "reward": pa.float64(),
    "outcome": pa.string(),
    "target": pa.string(),
    "reactions": pa.list_(pa.string()),
    "impression_time": _TIME,
    "reaction_time": _TIME,
    "position": pa.int32(),
    "variant": pa.string(),
    "model": pa.string(),
    "model_version": pa.int64(),
    "origin": pa.string(),
    "sample": pa.float32(),
    "impression_id": pa.binary(),
    "rules": RULES,
    "decision_log": pa.int64(),
    "decision_partition": pa.int32(),
    "decision_offset": pa.int64(),
}
_CANDIDATES: Final = ("candidates", "barred")
_CANDIDATE: Final[Mapping[str, pa.DataType]] = {
    "id": pa.string(),
    "service": pa.string(),
    "logic": pa.string(),
    "score": pa.float32(),
    "deviation": pa.float32(),
    "propensity": pa.float32(),
}


def _decoded(value: bytes, written_ms: int) -> events_pb2.SampledDecision:
    """The decision in a record's value; ``written_ms``: the record's time. Raises ValueError or Unreadable when it is
    none that makes a row of a decision log."""
    try:
        sampled = events_pb2.SampledDecision.FromString(value)
    except DecodeError as error:
        raise ValueError(f"{len(value)} bytes are no events.v1.SampledDecision: {error}") from error
    decision, candidates = sampled.decision, sampled.candidates
    if not (decision.placement and decision.impression_id):
        raise ValueError("the decision lacks its placement or its impression id")
    if sampled.chosen >= len(candidates):
        raise ValueError(f"chosen is {sampled.chosen}, of {len(candidates)} candidates")
    if not 0 < decision.propensity <= 1:
        raise ValueError(f"the propensity is {decision.propensity}")
    check_decision(decision, "decision")
    if abs(decision.decided_at_ms - written_ms) > MOST_SKEW_MS:  # all examples between would be read through for it
        raise ValueError(f"decided_at_ms is {decision.decided_at_ms}, and the record is of {written_ms}")
    for rule in sampled.rules:
        if max((*rule.adds, *rule.drops), default=0) > MOST_INT32:
            raise ValueError(f"rule {rule.rule!r} tells of candidate {max((*rule.adds, *rule.drops))}")
    return sampled


def _say(record: Consumed, error: Exception) -> None:
    log.warning("no decision", partition=record.partition, offset=record.offset, reason=str(error))


def _features(named: Sequence[events_pb2.NamedFeature]) -> dict[str, Any]:
    """By name: a number, a list where the field may have several values, else a text."""
    return {
        each.name: each.number
        if each.HasField("number")
        else list(each.values)
        if each.multi_valued
        else each.values[0]
        for each in named
        if each.HasField("number") or each.values
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of a placement. Features are columns of a struct; one that is a number here and a text there is a text."""
    context = _struct([row["context"] for row in rows])
    own = _struct([each["features"] for row in rows for name in _CANDIDATES for each in row[name]])
    columns: dict[str, pa.Array] = {}
    for name, kind in _TYPES.items():
        columns[name] = pa.array([row[name] for row in rows], kind)
    if context.num_fields:  # Parquet has no struct without fields
        columns["context"] = pa.array([_fitting(row["context"], context) for row in rows], context)
    fields = [pa.field(name, kind) for name, kind in _CANDIDATE.items()]
    if own.num_fields:
        fields.append(pa.field("features", own))
    for name in _CANDIDATES:
        listed = [[{**each, "features": _fitting(each["features"], own)} for each in row[name]] for row in rows]
        columns[name] = pa.array(listed, pa.list_(pa.struct(fields)))
    return pa.table(columns)


def _struct(listed: Sequence[Mapping[str, Any]]) -> pa.StructType:
    kinds: dict[str, set[type]] = defaultdict(set)
    for each in listed:
        for name, value in each.items():
            kinds[name].add(type(value))
    return pa.struct([(name, _kind(kinds[name])) for name in sorted(kinds)])


def _kind(found: set[type]) -> pa.DataType:
    if list in found:
        return pa.list_(pa.string())
    return pa.float64() if found == {float} else pa.string()


def _fitting(features: Mapping[str, Any], kind: pa.StructType) -> dict[str, Any]:
    """The features as values of the struct's fields."""
    fitting: dict[str, Any] = {}
    for field in kind:
        value = features.get(field.name)
        if value is not None and pa.types.is_string(field.type):
            value = str(value)
        elif value is not None and pa.types.is_list(field.type) and not isinstance(value, list):
            value = [str(value)]
        fitting[field.name] = value
    return fitting
