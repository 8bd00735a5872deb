"""How a decision comes about, candidate by candidate: the same stages, looked into, for one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Scores, SparseRows
from banditmesh.bandits.exploration.constraint import blocking, shifted
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.errors import InvalidArgument, PermissionDenied
from banditmesh.runtime.token import TokenError, TokenFault
from services.crs_engine import validation
from services.crs_engine.engine import Engine, group_requests
from services.crs_engine.feature_names import FeatureNames
from services.crs_engine.pipeline import filters
from services.crs_engine.pipeline.batch import Answered, Pool, Round, SelectionRequest, Slate

_FORGED: Final = frozenset({TokenFault.FORGED, TokenFault.UNKNOWN_KEY})


class Explainer:
    """Answers ``ExplainDecision``. Nothing that it does is shown to anybody or trained on."""

    def __init__(self, engine: Engine, max_age_s: float) -> None:
        """``max_age_s``: of a token, as the tracker has it."""
        self._engine = engine
        self._max_age_s = max_age_s

    async def explain(self, request: pb.ExplainDecisionRequest) -> pb.ExplainDecisionResponse:
        """See the contract.

        Raises:
            InvalidArgument: There is no subject, the token is no token, too old, or the dry run's request is wrong.
            PermissionDenied: The token is forged, or signed with a key that this mesh does not have.
            NotFound: The placement does not exist (any more).
        """
        placements, decision = self._engine.placements, None
        count = validation.checked_count(request.count) if request.count else 1
        match request.WhichOneof("subject"):
            case "dry_run":
                selection = validation.checked(request.dry_run, placements, at="dry_run.", count=count)
            case "impression_token":
                decision = self._verified(request.impression_token)
                if decision.placement not in placements:
                    raise validation.unknown_placement(decision.placement, placements, "impression_token.placement")
                selection = SelectionRequest(decision.placement, decision.user_id, {}, count)
            case _:
                raise InvalidArgument("nothing to explain", field="subject", hint="set dry_run or impression_token")
        (answered,) = await self._engine.answer(group_requests(placements, [selection]))
        return self._response(answered, decision)

    def _verified(self, token: bytes) -> events_pb2.Decision:
        pipeline = self._engine.pipeline
        try:
            return pipeline.ring.verify(token, now_s=pipeline.clock.now_s(), max_age_s=self._max_age_s)
        except TokenError as error:
            kind = PermissionDenied if error.fault in _FORGED else InvalidArgument
            raise kind(str(error), field="impression_token", metadata={"fault": error.fault.name}) from error

    def _response(self, answered: Answered, decision: events_pb2.Decision | None) -> pb.ExplainDecisionResponse:
        slate, (outcome,) = answered.slate, answered.outcomes
        placement, (variant,) = slate.group.placement, slate.group.variants.tolist()
        decisive = next((each for each in slate.rounds if len(each.shown[0])), slate.rounds[0])
        model = placement.variants[variant].model
        return pb.ExplainDecisionResponse(
            decided=decision,
            variant=placement.variants[variant].name,
            model=model if decisive.models else "",
            model_version=decisive.version(0, model),
            candidates=[
                *(kept for each in slate.rounds for kept in self._kept(slate, each)),
                *(removed for each in slate.rounds for removed in self._removed(slate, each)),
            ],
            no_content=outcome.empty,
            origin=decisive.origin if outcome.contents else events_pb2.ORIGIN_UNSPECIFIED,
            user=self._user(slate),
        )

    def _kept(self, slate: Slate, drawn: Round) -> Iterator[pb.ExplainedCandidate]:
        """What could be chosen in a round, the most probable candidate first."""
        pool, mean, deviation = drawn.pool, drawn.scores.mean, drawn.scores.deviation
        blocks = self._blocks(drawn)
        shares = _first_shares(drawn)
        moves = self._shifts(drawn)
        bonus, features = np.zeros(len(pool)), SparseRows.empty(len(pool))
        names = FeatureNames(slate, self._engine.pipeline.catalog)
        if drawn.models:
            bonus = slate.group.placement.variants[int(slate.group.variants[0])].exploration.bonus(drawn.scores)
            features = drawn.candidates.context.take(np.zeros(len(pool), np.int64)).beside(drawn.candidates.features)
        _, columns, shown = drawn.shown
        positions = dict(zip(shown.tolist(), (drawn.first[0] + columns).tolist(), strict=True))
        for at in np.lexsort((-mean, -shares)).tolist():
            yield self._candidate(
                slate,
                pool,
                at,
                propensity=float(shares[at]),
                score=float(mean[at]),
                deviation=float(deviation[at]),
                exploration_bonus=float(bonus[at]),
                features=_features(features, at, names.of(pool, at) if drawn.models else {}),
                position=positions.get(at),
                blocked=blocks.get(at, []),
                shifted=moves.get(at, []),
            )

    def _blocks(self, drawn: Round) -> dict[int, list[pb.ExplainedBlock]]:
        """By candidate: where which rule kept it from being drawn, the first position first; at each position the
        first rule that did.

        Constraints say the same whenever they are asked, so the draw is gone through once more.
        """
        found: dict[int, list[pb.ExplainedBlock]] = {}
        names = {id(constraint): rule for rule, constraint in drawn.constraints.items()}
        for column, before, left in _steps(drawn):
            for constraint, blocked in blocking(list(drawn.constraints.values()), before, left, drawn.pool.offsets):
                for at in np.flatnonzero(blocked).tolist():
                    found.setdefault(at, []).append(
                        pb.ExplainedBlock(
                            position=int(drawn.first[0]) + column,
                            rule=f"rules/{names[id(constraint)]}",
                            because=constraint.because(at, before),
                        )
                    )
        return found

    def _shifts(self, drawn: Round) -> dict[int, list[pb.ExplainedShift]]:
        """By candidate: where which rule began to move its score by how much."""
        found: dict[int, list[pb.ExplainedShift]] = {}
        last: dict[tuple[str, int], float] = {}
        for column, before, left in _steps(drawn):
            for rule, constraint in drawn.constraints.items():
                moved = constraint.shifts(before)
                if moved is None:
                    continue
                for at in np.flatnonzero(left).tolist():
                    by = float(moved[at])
                    if by != last.get((rule, at), 0.0):
                        last[rule, at] = by
                        found.setdefault(at, []).append(
                            pb.ExplainedShift(
                                position=int(drawn.first[0]) + column,
                                rule=f"rules/{rule}",
                                by=by,
                                because=constraint.because(at, before),
                            )
                        )
        return found

    def _removed(self, slate: Slate, drawn: Round) -> Iterator[pb.ExplainedCandidate]:
        view, kept = drawn.view, drawn.removed_by == filters.KEPT
        used = self._engine.pipeline.filters[slate.group.placement.name]
        for at in np.flatnonzero(~kept).tolist():
            by = used[drawn.removed_by[at]]
            yield self._candidate(
                slate, view.pool, at, removed_by=f"filters/{by.name}", removed_because=by.because(view, at, kept)
            )

    def _candidate(self, slate: Slate, pool: Pool, at: int, **rest: Any) -> pb.ExplainedCandidate:
        catalog, row = self._engine.pipeline.catalog, int(pool.rows[at])
        source = slate.group.placement.sources[pool.sources[at]]
        content_id = catalog.name_of(row)[1] if row >= 0 else ""
        return pb.ExplainedCandidate(
            service=source.service,
            content_id=content_id or f"{int(pool.contents[at]):016x}",
            title=catalog.content(row).title if content_id else "",
            logic=source.logic,
            **rest,
        )

    def _user(self, slate: Slate) -> pb.ExplainedUser:
        records, placement = slate.users.records, slate.group.placement
        profile = placement.users.parse(slate.users.profiles[0])
        return pb.ExplainedUser(
            profile={
                name: "|".join(value) if isinstance(value, list) else str(value) for name, value in profile.items()
            },
            feedback_count=int(records.feedback[0]),
            recent_clicks=self._names(records.clicked()[1].tolist()),
            mutes=self._names(records.mute_events["content"].tolist()),
        )

    def _names(self, contents: Iterable[int]) -> list[str]:
        return [self._engine.pipeline.catalog.name(key) or f"{key:016x}" for key in contents]


def _steps(drawn: Round) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.bool_]]]:
    """The draw of a lone user once more: each column of the choice, what was chosen before it, and who was left."""
    chosen = drawn.choice.chosen
    for column in range(min(len(drawn.shown[0]) + 1, chosen.shape[1])):
        before = chosen[:, :column]
        left = np.ones(len(drawn.pool), np.bool_)
        left[before[before >= 0]] = False
        yield column, before, left


def _first_shares(drawn: Round) -> NDArray[np.float64]:
    """``float64[n_candidates]``: with which probability each got the round's first position."""
    constraints = list(drawn.constraints.values())
    before, free = drawn.choice.chosen[:, :0], np.ones(len(drawn.pool), np.bool_)
    for _, blocked in blocking(constraints, before, free.copy(), drawn.pool.offsets):
        free &= ~blocked
    seen = shifted(drawn.scores, constraints, before)
    scores = Scores(seen.mean[free], seen.deviation[free])
    shares = np.zeros(len(free))
    shares[free] = drawn.explores.probabilities(scores, np.array([0, len(scores.mean)]))
    return shares


def _features(rows: SparseRows, at: int, names: Mapping[int, str]) -> list[pb.ExplainedFeature]:
    span = slice(int(rows.offsets[at]), int(rows.offsets[at + 1]))
    return [
        pb.ExplainedFeature(name=names.get(each, ""), id=each, value=value)
        for each, value in zip(rows.ids[span].tolist(), rows.values[span].tolist(), strict=True)
    ]
