"""How a decision comes about, candidate by candidate: the same stages, looked into, for one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.exploration.ucb import Ucb
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.errors import InvalidArgument, PermissionDenied
from banditmesh.runtime.token import TokenError, TokenFault
from services.crs_engine import validation
from services.crs_engine.decide import Chosen, Decided
from services.crs_engine.engine import Engine, group_requests
from services.crs_engine.feature_names import FeatureNames
from services.crs_engine.pipeline import explore, filters
from services.crs_engine.pipeline.batch import FALLBACK_SOURCE, Pool, SelectionRequest
from services.crs_engine.pipeline.filters.base import Filter
from services.crs_engine.pipeline.respond import no_content

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
        match request.WhichOneof("subject"):
            case "dry_run":
                selection = validation.checked(request.dry_run, placements, at="dry_run.")
            case "impression_token":
                decision = self._verified(request.impression_token)
                if decision.placement not in placements:
                    raise validation.unknown_placement(decision.placement, placements, "impression_token.placement")
                selection = SelectionRequest(decision.placement, decision.user_id, {})
            case _:
                raise InvalidArgument("nothing to explain", field="subject", hint="set dry_run or impression_token")
        (decided,) = await self._engine.decide(group_requests(placements, [selection]))
        return self._response(decided, decision)

    def _verified(self, token: bytes) -> events_pb2.Decision:
        try:
            return self._engine.ring.verify(token, now_s=self._engine.clock.now_s(), max_age_s=self._max_age_s)
        except TokenError as error:
            kind = PermissionDenied if error.fault in _FORGED else InvalidArgument
            raise kind(str(error), field="impression_token", metadata={"fault": error.fault.name}) from error

    def _response(self, decided: Decided, decision: events_pb2.Decision | None) -> pb.ExplainDecisionResponse:
        placement, (variant,) = decided.group.placement, decided.group.variants.tolist()
        chosen = decided.scored
        if decided.fallen is not None and len(chosen.pool) == 0:
            chosen = decided.fallen
        model = placement.variants[variant].model
        shows_nothing = chosen.choice.chosen[0, 0] < 0
        return pb.ExplainDecisionResponse(
            decided=decision,
            variant=placement.variants[variant].name,
            model=model if chosen.models else "",
            model_version=chosen.models[model].version if chosen.models else 0,
            candidates=[*self._kept(decided, chosen, variant), *self._all_removed(decided)],
            no_content=no_content(decided, 0) if shows_nothing else None,
            origin=chosen.origin if not shows_nothing else events_pb2.ORIGIN_UNSPECIFIED,
            user=self._user(decided),
        )

    def _kept(self, decided: Decided, chosen: Chosen, variant: int) -> list[pb.ExplainedCandidate]:
        """What could be chosen, the most probable one first."""
        placement, pool = decided.group.placement, chosen.filtered.pool
        if chosen.scores is None:
            return [
                self._candidate(chosen, pool, at, propensity=float(chosen.shares[at]))
                for at in np.argsort(-chosen.shares, kind="stable")
            ]
        shares = explore.probabilities(decided.group, chosen.scores, pool.offsets)
        exploration = placement.variants[variant].exploration
        alpha = exploration.alpha if isinstance(exploration, Ucb) else 0.0
        names = FeatureNames(decided, self._engine.catalog)
        features = chosen.candidates.context.take(np.zeros(len(pool), np.int64)).beside(chosen.candidates.features)
        return [
            self._candidate(
                chosen,
                pool,
                at,
                propensity=float(shares[at]),
                score=float(chosen.scores.mean[at]),
                deviation=float(chosen.scores.deviation[at]),
                exploration_bonus=alpha * float(chosen.scores.deviation[at]),
                features=_features(features, at, names.of(pool, at)),
            )
            for at in np.lexsort((-chosen.scores.mean, -shares)).tolist()
        ]

    def _all_removed(self, decided: Decided) -> Iterator[pb.ExplainedCandidate]:
        yield from self._removed(decided.scored, filters.FILTERS)
        if decided.fallen is not None:
            yield from self._removed(decided.fallen, filters.FALLBACK_FILTERS)

    def _removed(self, chosen: Chosen, used: tuple[Filter, ...]) -> Iterator[pb.ExplainedCandidate]:
        view, removed_by = chosen.filtered.view, chosen.filtered.removed_by
        for at in np.flatnonzero(removed_by != filters.KEPT).tolist():
            by = used[removed_by[at]]
            yield self._candidate(
                chosen, view.pool, at, removed_by=f"filters/{by.name}", removed_because=by.because(view, at)
            )

    def _candidate(self, chosen: Chosen, pool: Pool, at: int, **rest: Any) -> pb.ExplainedCandidate:
        placement, catalog = chosen.filtered.view.placement, self._engine.catalog
        row, source = int(pool.rows[at]), int(pool.sources[at])
        service, content_id = catalog.name_of(row) if row >= 0 else ("", "")
        title = catalog.content(row).title if content_id else ""
        if source == FALLBACK_SOURCE:
            (service, content_id), logic = chosen.popular.name(int(pool.contents[at])), ""
        else:
            service, logic = placement.sources[source].service, placement.sources[source].logic
        return pb.ExplainedCandidate(
            service=service,
            content_id=content_id or f"{int(pool.contents[at]):016x}",
            title=title,
            logic=logic,
            **rest,
        )

    def _user(self, decided: Decided) -> pb.ExplainedUser:
        states, placement = decided.users.states, decided.group.placement
        profile = placement.users.parse(decided.users.profiles[0])
        return pb.ExplainedUser(
            profile={
                name: "|".join(value) if isinstance(value, list) else str(value) for name, value in profile.items()
            },
            feedback_count=int(states.feedback[0]),
            recent_clicks=self._names(states.click_events["content"].tolist()),
            mutes=self._names(states.mute_events["content"].tolist()),
        )

    def _names(self, contents: Iterable[int]) -> list[str]:
        return [self._engine.catalog.name(key) or f"{key:016x}" for key in contents]


def _features(rows: SparseRows, at: int, names: Mapping[int, str]) -> list[pb.ExplainedFeature]:
    span = slice(int(rows.offsets[at]), int(rows.offsets[at + 1]))
    return [
        pb.ExplainedFeature(name=names.get(each, ""), id=each, value=value)
        for each, value in zip(rows.ids[span].tolist(), rows.values[span].tolist(), strict=True)
    ]
