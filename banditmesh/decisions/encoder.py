"""From rows of a decision log to batches.

A feature's name is looked up in the candidate first, then in the context. So a name that only the context has is shared
by the decision's candidates, and one that some candidates have too is given to each of the others from the context.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing
from banditmesh.bandits.batch import Candidates, SparseRows
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.row import Candidate, Decision, Features
from banditmesh.decisions.view import View


class _RowBuilder:
    """Sparse rows under construction; an entry with a partner is the cross of both ids."""

    def __init__(self) -> None:
        self.ends = [0]
        self.ids: list[int] = []
        self.values: list[float] = []
        self.partners: dict[int, int] = {}  # position of the entry -> the other id

    def add(self, features: Features) -> None:
        for entries in features.values():
            for identity, value in entries:
                self.ids.append(identity)
                self.values.append(value)

    def cross(self, view: View, context: Features, candidate: Candidate) -> None:
        for left, right in view.cross:
            others = view.entries(right, context, candidate)
            for identity, value in view.entries(left, context, candidate):
                for other, factor in others:
                    self.partners[len(self.ids)] = other
                    self.ids.append(identity)
                    self.values.append(value * factor)

    def end_row(self) -> None:
        self.ends.append(len(self.ids))

    def rows(self) -> SparseRows:
        ids = np.array(self.ids, np.uint32)
        if self.partners:
            at = np.fromiter(self.partners, np.int64, len(self.partners))
            ids[at] = hashing.cross(ids[at], np.fromiter(self.partners.values(), np.uint32, len(self.partners)))
        return SparseRows(np.array(self.ends, np.int64), ids, np.array(self.values, np.float32))


def encode(decisions: Sequence[Decision], view: View) -> LoggedBatch:
    """The batch of these rows, as `view` says."""
    contexts, features = _RowBuilder(), _RowBuilder()
    offsets = np.cumsum([0, *(len(decision.candidates) for decision in decisions)], dtype=np.int64)
    for decision in decisions:
        context = decision.context
        if view.user and decision.user is not None and "user" not in context:
            context = {**context, "user": ((hashing.categorical_id("user", decision.user), 1.0),)}
        contested = context.keys() & {name for candidate in decision.candidates for name in candidate.features}
        contexts.add({name: context[name] for name in context if name not in contested} if contested else context)
        contexts.end_row()
        for candidate in decision.candidates:
            features.add(candidate.features)
            if contested:
                features.add({name: context[name] for name in contested if name not in candidate.features})
            features.cross(view, context, candidate)
            features.end_row()
    flat = [candidate for decision in decisions for candidate in decision.candidates]
    shown = np.array([-1 if each.shown is None else each.shown for each in decisions], np.int64)
    return LoggedBatch(
        np.array([decision.line for decision in decisions], np.int64),
        np.array([decision.time_s for decision in decisions], np.float64),
        Candidates(
            offsets,
            np.array([hashing.content_key(each.service, each.id) for each in flat], np.uint64),
            np.array([hashing.logic_key(each.service, each.logic) for each in flat], np.uint64),
            np.array([hashing.service_key(each.service) for each in flat], np.uint64),
            contexts.rows(),
            features.rows(),
        ),
        np.where(shown < 0, -1, shown + offsets[:-1]),
        _known([decision.reward for decision in decisions]).astype(np.float32),
        _known([decision.propensity for decision in decisions]),
        _known([each.reward for each in flat]).astype(np.float32),
    )


def _known(numbers: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if number is None else number for number in numbers], np.float64)
