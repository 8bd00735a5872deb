"""Decisions with all their candidates, for the archive: a sample, best effort, and never at the cost of an answer.

What a decision was made from is noted where it was made, in some microseconds, and only for the few that are sampled.
Everything else happens beside the traffic, one decision at a time, behind a bounded queue: what finds it full is
dropped and counted, and so is what Kafka does not take.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.choice import Explores
from banditmesh.bandits.features import COMPUTED, FeatureSpec, Value
from banditmesh.contracts.crs_engine.v1.crs_engine_pb2 import SelectedContent
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import InvalidArgument, Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.user_records import STATE_FEATURES
from services.crs_engine import local_time
from services.crs_engine.buckets import bucket_name, buckets
from services.crs_engine.catalog import Catalog, content_fields
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline.batch import Answered, Round
from services.crs_engine.pipeline.fatigue import FATIGUE
from services.crs_engine.pipeline.rules.effects import Effect, Effects, Rebuilt, Step

log = get_logger(__name__)

SCHEMA_VERSION: Final = 2
WAITING: Final = 256
"""Decisions that wait at most: 2 MiB or so."""
AT_ONCE: Final = 32
"""Decisions that are sent together at most."""
BUSY_SHARE: Final = 0.1
"""Of the event loop's time that making records of decisions takes at most."""
LARGEST: Final = float(np.finfo(np.float32).max)


class Sends(Protocol):
    """Where decisions go: `runtime.kafka.producer.Producer`, bound to a topic."""

    async def __call__(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Send keys and values together. Raises Unavailable, or InvalidArgument for one that is too large."""
        ...


@dataclass(frozen=True, eq=False)
class Noted:
    """What was noted of a user's decisions in one round; copies, so that they stay true whatever the engine does.

    Attributes:
        names: Service and content id of each candidate.
        bodies: Its ``SelectedContent``, serialised.
        sources: Its position in ``placement.sources``.
        scores: Of all candidates.
        of_user: Bucket of each feature that is worked out at the request.
        of_candidates: The same for each candidate: int64[n].
        said: float32[n, 2], see `pipeline.batch.Pool.said`.
        chosen: For each position: its number, which candidate has it, and the impression's id.
        steps: For each position who could have it, by which means, and what rules did.
    """

    placement: CompiledPlacement
    user_id: str
    context: Mapping[str, str]
    profile: bytes
    now_s: float
    variant: int
    model_version: int
    scored: bool
    origin: events_pb2.Origin.ValueType
    names: Sequence[tuple[str, str]]
    bodies: Sequence[bytes]
    sources: Sequence[int]
    scores: Scores
    of_user: Mapping[str, int]
    of_candidates: Mapping[str, NDArray[np.int64]]
    said: NDArray[np.float32] | None
    explores: Explores
    chosen: Sequence[tuple[int, int, float, bytes]]
    steps: Sequence[Step]


class Sampler:
    """Notes decisions (`offer`), and hands them on (`run`)."""

    def __init__(
        self,
        catalog: Catalog,
        send: Sends,
        clock: Clock,
        metrics: EngineMetrics,
        rng: np.random.Generator,
        rebuilt: Mapping[str, Rebuilt],
        *,
        waiting: int = WAITING,
    ) -> None:
        """``rng``: decides which decisions are sampled; not the one that explores. ``rebuilt``: by placement."""
        self._catalog = catalog
        self._send = send
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._rebuilt = rebuilt
        self._queue: asyncio.Queue[Noted] = asyncio.Queue(waiting)

    def offer(self, answered: Answered) -> None:
        """Note a sample of what was just answered. Call it before anything is awaited: rows of the catalog move."""
        group = answered.slate.group
        sample = group.placement.config.decisions.sample
        if not sample:
            return
        for user in np.flatnonzero(self._rng.random(len(group)) < sample).tolist():
            if not answered.outcomes[user].contents:
                continue
            if self._queue.full():
                self._metrics.not_sampled.labels("queue").inc()
                continue
            for each in answered.slate.rounds:
                noted = self._note(answered, each, user)
                if noted is not None and not self._queue.full():
                    self._queue.put_nowait(noted)

    async def run(self) -> None:
        """Hand on what was noted, until cancelled."""
        while True:
            waiting = [await self._queue.get()]
            records: list[tuple[bytes, bytes]] = []
            placements: list[str] = []
            while waiting:
                noted = waiting.pop()
                began_s = time.perf_counter()
                made = [each.SerializeToString() for each in messages(noted)]
                records += [(noted.user_id.encode(), each) for each in made]
                placements += [noted.placement.name] * len(made)
                # Others come first: a decision takes some tenths of a millisecond, and there may be many.
                await self._clock.sleep((time.perf_counter() - began_s) * (1 / BUSY_SHARE - 1))
                if len(records) < AT_ONCE and not self._queue.empty():
                    waiting.append(self._queue.get_nowait())
            try:
                await self._send(records)
            except Unavailable as error:
                log.debug("sampled decisions dropped", reason=str(error))
                self._metrics.not_sampled.labels("kafka").inc(len(records))
                continue
            except InvalidArgument:
                self._metrics.not_sampled.labels("too_large").inc(len(records))
                continue
            for placement in placements:
                self._metrics.sampled.labels(placement).inc()

    def _note(self, answered: Answered, drawn: Round, user: int) -> Noted | None:
        """What a round has decided for a user; None: nothing."""
        positions = np.flatnonzero(drawn.choice.chosen[user] >= 0).tolist()
        if not positions:
            return None
        slate, pool = answered.slate, drawn.pool
        group, users = slate.group, slate.users
        placement, now_s = group.placement, drawn.view.now_s
        variant = int(group.variants[user])
        mine = slice(int(pool.offsets[user]), int(pool.offsets[user + 1]))
        rows = pool.rows[mine].tolist()
        contents = answered.outcomes[user].contents
        first = int(drawn.first[user])
        chosen = drawn.choice.chosen
        spec = placement.spec
        effects = Effects(drawn, slate, user, self._rebuilt[placement.name])
        return Noted(
            placement=placement,
            user_id=group.requests[user].user_id,
            context=group.requests[user].context,
            profile=users.profiles[user],
            now_s=now_s,
            variant=variant,
            model_version=drawn.version(user, placement.variants[variant].model),
            scored=bool(drawn.models),
            origin=drawn.origin,
            names=[self._catalog.name_of(row) for row in rows],
            bodies=[self._catalog.shown(row) for row in rows],
            sources=pool.sources[mine].tolist(),
            scores=Scores(drawn.scores.mean[mine].copy(), drawn.scores.deviation[mine].copy()),
            of_user={name: int(buckets(STATE_FEATURES[name](users.records, now_s))[user]) for name in spec.state},
            of_candidates={
                name: buckets(shown(users, pool, now_s))[mine] for name, shown in FATIGUE.items() if name in spec.own
            },
            said=None if pool.said is None else pool.said[mine].copy(),
            explores=placement.variants[variant].exploration if drawn.models else drawn.explores,
            chosen=[
                (
                    first + column,
                    int(chosen[user, column]) - mine.start,
                    float(drawn.choice.propensity[user, column]),
                    SelectedContent.FromString(contents[first + column]).impression_id,
                )
                for column in positions
            ],
            steps=[effects.at(column) for column in positions],
        )


def messages(noted: Noted) -> Iterable[events_pb2.SampledDecision]:
    """A record for each position."""
    placement = noted.placement
    spec = placement.spec
    user = _user_fields(noted)
    context = [_named(spec, name, user[name]) for name in spec.user if user.get(name) is not None]
    fields = [_candidate_fields(noted, at) for at in range(len(noted.names))]
    own = [[_named(spec, name, each[name]) for name in spec.own if each.get(name) is not None] for each in fields]
    variant = placement.variants[noted.variant]

    def candidate(each: int, share: float) -> events_pb2.SampledCandidate:
        return events_pb2.SampledCandidate(
            service=noted.names[each][0],
            content_id=noted.names[each][1],
            logic=placement.sources[noted.sources[each]].logic,
            features=own[each],
            score=float(noted.scores.mean[each]) if noted.scored else 0.0,
            deviation=float(noted.scores.deviation[each]) if noted.scored else 0.0,
            propensity=share,
        )

    for (position, at, propensity, impression_id), step in zip(noted.chosen, noted.steps, strict=True):
        there = np.flatnonzero(step.free)
        barred = np.flatnonzero(np.any([each.adds for each in step.effects], axis=0)) if step.effects else there[:0]
        scores = Scores(step.means[there], noted.scores.deviation[there])
        shares = noted.explores.probabilities(scores, np.array([0, len(there)]))
        service, content_id = noted.names[at]
        yield events_pb2.SampledDecision(
            schema_version=SCHEMA_VERSION,
            decision=events_pb2.Decision(
                impression_id=impression_id,
                user_id=noted.user_id,
                placement=placement.name,
                service=service,
                content_id=content_id,
                logic=placement.sources[noted.sources[at]].logic,
                position=position,
                variant=variant.name,
                model=variant.model if noted.scored else "",
                model_version=noted.model_version,
                propensity=propensity,
                decided_at_ms=int(noted.now_s * 1000),
                origin=noted.origin,
            ),
            context=context,
            candidates=[candidate(each, share) for each, share in zip(there.tolist(), shares.tolist(), strict=True)],
            chosen=int(np.searchsorted(there, at)),
            sample=placement.config.decisions.sample,
            barred=[candidate(each, 0.0) for each in barred.tolist()],
            rules=[_effect(each, np.concatenate([there, barred])) for each in step.effects],
        )


def _effect(effect: Effect, listed: NDArray[np.int64]) -> events_pb2.RuleEffect:
    """`listed`: int64[n], the candidates in the order of the record."""
    return events_pb2.RuleEffect(
        rule=effect.rule,
        adds=np.flatnonzero(effect.adds[listed]).tolist(),
        drops=np.flatnonzero(effect.drops[listed]).tolist(),
        shifts=() if effect.shifts is None else effect.shifts[listed].tolist(),
        shares=() if effect.shares is None else effect.shares[listed].tolist(),
    )


def _user_fields(noted: Noted) -> dict[str, Value]:
    spec = noted.placement.spec
    profile = noted.placement.users.parse(noted.profile)
    fields: dict[str, Value] = {name: profile.get(name) for name in spec.profile}
    fields |= {name: bucket_name(bucket) for name, bucket in noted.of_user.items()}
    zone = local_time.zone(local_time.said(noted.context, profile)) or ZoneInfo(spec.time_zone)
    local = datetime.fromtimestamp(noted.now_s, zone)
    moment = {"hour": str(local.hour), "weekday": str(local.weekday())}
    for name in spec.context:
        fields[name] = moment[name] if name in COMPUTED else noted.context.get(name)
    return fields


def _candidate_fields(noted: Noted, at: int) -> dict[str, Value]:
    service = noted.names[at][0]
    fields = content_fields(service, SelectedContent.FromString(noted.bodies[at]).content)
    fields["logic"] = noted.placement.sources[noted.sources[at]].logic or None
    fields |= {name: bucket_name(int(each[at])) for name, each in noted.of_candidates.items()}
    if noted.said is not None:
        score, rank = noted.said[at].tolist()
        fields["score"] = score or None
        fields["rank"] = bucket_name(int(buckets(np.array([int(rank)]))[0]))
    return fields


def _named(spec: FeatureSpec, name: str, value: Value) -> events_pb2.NamedFeature:
    """A feature as the featurizer takes it: of a list as many values as have a column."""
    width = spec.multi_valued.get(name, 1)
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        texts = [each for each in dict.fromkeys(value) if isinstance(each, str)][:width]
        return events_pb2.NamedFeature(name=name, values=texts, multi_valued=width > 1)
    number = float(value) if isinstance(value, int | float) and -LARGEST <= value <= LARGEST else None
    return events_pb2.NamedFeature(name=name, number=number)
