"""What rules cost: how much more reward lists would be expected to earn without one of them.

Now and then a batch is drawn again beside the answer, with the rules and without each of them, from the same random
numbers; the difference of the expected rewards of the two lists is an unbiased estimate of the rule's cost, and most of
the chance in it cancels. Nothing of it is shown to anybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import numpy as np

from banditmesh.bandits.exploration.choice import rank
from banditmesh.bandits.exploration.constraint import Constraint
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline.batch import Round, Slate

EVERY: Final = 64
"""One in so many groups of a placement that has rules is drawn again."""
REMEMBERED: Final = 1000
"""Lists that the mean is over, about: older ones fade."""
ALL: Final = "all"


class RuleCosts:
    """Keeps the running means of a process."""

    def __init__(self, metrics: EngineMetrics, every: int = EVERY) -> None:
        self._metrics = metrics
        self._every = every
        self._turn: dict[str, int] = {}
        self._lists: dict[str, int] = {}
        self._mean: dict[tuple[str, str], float] = {}

    def look(self, slate: Slate, rules: Collection[str]) -> None:
        """Take a group's lists into account, if it is the turn of its placement. ``rules``: the placement's."""
        # Who is answered from the cache has a round of its own; what a fallback fills in is nobody's expected reward.
        scored = [each for each in slate.rounds if each.models and len(each.pool)]
        if not rules or not scored:
            return
        name = slate.group.placement.name
        turn = self._turn[name] = self._turn.get(name, -1) + 1
        if turn % self._every:
            return
        lists = self._lists[name] = self._lists.get(name, 0) + len(slate.group)
        weight = len(slate.group) / min(lists, max(REMEMBERED, len(slate.group)))
        costs = Counter[str]()
        for each in scored:
            costs.update(dict(_costs(slate, each, turn)))
        for rule in (*rules, ALL):
            before = self._mean.get((name, rule), 0.0)
            mean = self._mean[name, rule] = before + weight * (costs[rule] - before)
            self._metrics.rule_cost.labels(name, rule).set(mean)


def _costs(slate: Slate, drawn: Round, seed: int) -> Iterator[tuple[str, float]]:
    """What each rule that did something costs a list, and all of them together, in units of the reward."""
    constraints = drawn.constraints
    with_all = _earned(slate, drawn, list(constraints.values()), seed)
    for rule in constraints:
        others = [each for name, each in constraints.items() if name != rule]
        yield rule, _earned(slate, drawn, others, seed) - with_all
    yield ALL, _earned(slate, drawn, [], seed) - with_all


def _earned(slate: Slate, drawn: Round, constraints: Sequence[Constraint], seed: int) -> float:
    """The mean of the rewards that lists drawn under these constraints are expected to earn."""
    empty = Slate.empty(slate.group, slate.users)
    scores, wanted, rng = drawn.scores, empty.open, np.random.default_rng(seed)
    chosen = rank(drawn.explores, scores, drawn.pool.offsets, int(wanted.max()), rng, constraints, wanted).chosen
    shown = chosen[chosen >= 0]
    return float(np.nan_to_num(scores.mean[shown], posinf=0.0, neginf=0.0).sum(dtype=np.float64)) / len(slate.group)
