"""The tally of a placement's experiment as a shard: read, merged, published and restored like a model, so that each
example counts exactly once whatever dies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import key64
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.experiments.era import Plan, Shown
from banditmesh.experiments.tally import NAME, Tally
from services.learner.catalog import ModelSpec, ShardId
from services.learner.examples import Columns, Received
from services.learner.shard import Shard, State

EXPERIMENT: Final = NAME
SETTLE_MS: Final = 60_000
"""How long after another plan is known here the last engine may still assign by the one before; and how long before
that the first engine may have assigned by it."""


@dataclass(frozen=True, eq=False)
class TallyState:
    """A tally that takes in examples."""

    tally: Tally

    def learn(self, columns: Columns, rows: NDArray[np.intp]) -> None:
        """See `State`."""
        self.tally.learn(shown([columns.received[row] for row in rows.tolist()]))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """See `State`."""
        return self.tally.tensors()


class ExperimentShard(Shard):
    """See the module. `follow` must have been called before it learns."""

    def __init__(self, placement: str, *, batch: int) -> None:
        """``batch``: see `Shard`."""
        self._plan: tuple[Plan, int] | None = None
        super().__init__(ShardId(placement, EXPERIMENT), ModelSpec(EXPERIMENT, {}), batch=batch)

    @property
    def tally(self) -> Tally:
        """What was counted."""
        assert isinstance(self._state, TallyState)
        return self._state.tally

    def follow(self, plan: Plan, now_ms: int) -> bool:
        """Count by this plan; whether that is another era. Decisions of the minutes around now are of neither."""
        if self._plan is None or self._plan[0] != plan:
            self._plan = (plan, now_ms)
        return self.tally.plan(*self._plan, SETTLE_MS)

    def _fresh(self) -> State:
        return self._following(Tally())

    def _load(self, tensors: Mapping[str, NDArray[Any]]) -> State:
        return self._following(Tally.from_tensors(tensors))

    def _following(self, tally: Tally) -> State:
        if self._plan is not None:
            tally.plan(*self._plan, SETTLE_MS)
        return TallyState(tally)


def shown(given: Sequence[Received]) -> Shown:
    """Closed impressions as columns. What a joiner of before has no list of reactions for had its outcome alone."""
    joined = [each.joined for each in given]
    decisions = [each.decision for each in given]
    reactions = [tuple(each.reactions) or (each.outcome,) for each in joined]

    def had(outcome: int) -> NDArray[np.bool_]:
        return np.array([outcome in each for each in reactions], np.bool_)

    return Shown(
        users=np.array([key64(each.user_id) for each in decisions], np.uint64),
        variants=[each.variant for each in decisions],
        # Of a decision without a time, when it was shown is the next best.
        decided_ms=np.array(
            [
                decision.decided_at_ms or each.impression_time_ms
                for decision, each in zip(decisions, joined, strict=True)
            ],
            np.int64,
        ),
        shown_ms=np.array([each.impression_time_ms for each in joined], np.int64),
        rewards=np.array([each.reward for each in joined], np.float64),
        clicked=had(events_pb2.OUTCOME_CLICK),
        muted=had(events_pb2.OUTCOME_MUTE),
        reached=had(events_pb2.OUTCOME_TARGET),
        dwelt=had(events_pb2.OUTCOME_DWELL),
        targets=[each.target for each in joined],
    )
