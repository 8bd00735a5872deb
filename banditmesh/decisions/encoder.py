"""From rows of a decision log to batches.

A feature's name is looked up in the candidate first, then in the context. So a name that only the context has is shared
by the decision's candidates, and one that some candidates have too is given to each of the others from the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing
from banditmesh.bandits.batch import Candidates, SparseRows
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.features import LARGEST, Features, add, rows
from banditmesh.decisions.known import Known
from banditmesh.decisions.row import Decision
from banditmesh.decisions.view import View, side_of, without

_contents: Final = Known(hashing.content_key)
_logics: Final = Known(hashing.logic_key)
_services: Final = Known(lambda service, _: hashing.service_key(service))
T = TypeVar("T")


def encode(decisions: Sequence[Decision], view: View) -> LoggedBatch:
    """The batch of these rows, of which there is at least one, as `view` says."""
    (
        lines,
        _,
        times_s,
        users,
        contexts,
        ids,
        services,
        logics,
        features,
        outcomes,
        shown,
        propensities,
        rewards,
        given,
        _,
        lists,
        positions,
        _,
        fallback,
    ) = zip(*decisions, strict=True)
    if view.needed:
        for decision in decisions:
            _demand(decision, view.needed)
    counts = np.array([len(each) for each in ids], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    flat = _flat(services)
    shared, own = _looked_up(contexts, features)
    context, content = rows(shared), rows(own)
    if view.user:
        context = context.beside(_users(users, contexts))
    if view.cross:
        content = content.beside(_crosses(decisions, view))
    places = np.array([-1 if each is None else each for each in shown], np.int64)
    return LoggedBatch(
        np.array(lines, np.int64),
        np.array(times_s, np.float64),
        Candidates(
            offsets,
            _keys(_contents, flat, _flat(ids)),
            _keys(_logics, flat, _flat(logics)),
            _keys(_services, flat, flat),
            context,
            content,
        ),
        np.where(places < 0, -1, places + offsets[:-1]),
        _numbers(rewards).astype(np.float32),
        _numbers(propensities),
        _numbers(_flat(outcomes)).astype(np.float32),
        _targets(given),
        np.array([0 if each is None else hashing.key64(each) for each in lists], np.uint64),
        np.array(
            [-1 if name is None or at is None else at for name, at in zip(lists, positions, strict=True)], np.int64
        ),
        np.array(fallback, np.bool_),
    )


def _targets(given: Sequence[Sequence[float | None] | None]) -> NDArray[np.float64] | None:
    there = [each for each in given if each is not None]
    return _numbers(_flat(there)) if len(there) == len(given) else None


def _demand(decision: Decision, needed: Sequence[str]) -> None:
    """Raises BrokenRow when a candidate has a field neither of its own nor from the context."""
    for name in needed:
        if name in decision.context:
            continue
        for at, own in enumerate(decision.features):
            if name not in own:
                raise BrokenRow(decision.where, f"lacks {name}, which dense names", field=f"candidates[{at}].features")


def _looked_up(
    contexts: Sequence[Features], features: Sequence[Sequence[Features]]
) -> tuple[list[Features], list[Features]]:
    """What the candidates of each decision share, and what each candidate has for itself."""
    shared: list[Features] = []
    own: list[Features] = []
    for context, candidates in zip(contexts, features, strict=True):
        if not context or all(map(context.keys().isdisjoint, candidates)):
            shared.append(context)
            own.extend(candidates)
            continue
        contested = {name: context[name] for name in context if any(name in each for each in candidates)}
        shared.append(without(context, contested))
        own.extend({**each, **without(contested, each)} for each in candidates)
    return shared, own


def _users(users: Sequence[str | None], contexts: Sequence[Features]) -> SparseRows:
    """The users as a category; a context that has a feature of this name keeps its own."""
    known = [None if "user" in context else user for user, context in zip(users, contexts, strict=True)]
    there = np.array([user is not None for user in known])
    entries = rows([{"user": user} for user in known if user is not None]) if there.any() else SparseRows.empty(0)
    return SparseRows(np.concatenate([[0], np.cumsum(there)]), entries.ids, entries.values)


def _crosses(decisions: Sequence[Decision], view: View) -> SparseRows:
    """One row a candidate. The ids are mixed at the end and all at once."""
    ends = [0]
    left: list[int] = []
    right: list[int] = []
    values: list[float] = []
    for decision in decisions:
        context = decision.context
        if view.user and decision.user is not None and "user" not in context:
            context = {**context, "user": decision.user}
        whole = _entries(context)
        for candidate in decision.candidates:
            for pair in view.cross:
                sides = [side_of(side, context, candidate) for side in pair]
                (lefts, amounts), (rights, factors) = (whole if side is context else _entries(side) for side in sides)
                for each, amount in zip(lefts, amounts, strict=True):
                    left.extend([each] * len(rights))
                    right.extend(rights)
                    values.extend(factors if amount == 1.0 else [amount * factor for factor in factors])
            ends.append(len(left))
    ids = hashing.cross(np.array(left, np.uint32), np.array(right, np.uint32))
    products = np.array(values)
    _demand_float32(products, ends, decisions)
    return SparseRows(np.array(ends, np.int64), ids, products.astype(np.float32))


def _demand_float32(products: NDArray[np.float64], ends: Sequence[int], decisions: Sequence[Decision]) -> None:
    """Raises BrokenRow for a cross of two values whose product is beyond what float32 holds."""
    large = ~(np.abs(products) <= LARGEST)
    if large.any():
        at = int(np.argmax(large))
        candidate = int(np.searchsorted(ends, at, side="right")) - 1
        owners = np.repeat(np.arange(len(decisions)), [len(each.ids) for each in decisions])
        where = decisions[owners[candidate]].where
        raise BrokenRow(where, "a cross of two features is too large for 32 bits", value=float(products[at]))


def _entries(features: Features) -> tuple[list[int], list[float]]:
    ids: list[int] = []
    values: list[float] = []
    add(features, ids, values)
    return ids, values


def _flat(lists: Sequence[Sequence[T]]) -> list[T]:
    return list(chain.from_iterable(lists))


def _keys(known: Known, services: Sequence[str], names: Sequence[str]) -> NDArray[np.uint64]:
    """uint64[n], the keys of these names of these services."""
    if len({*services}) == 1:
        return np.array(list(map(known[services[0]].__getitem__, names)), np.uint64)
    return np.array([known[service][name] for service, name in zip(services, names, strict=True)], np.uint64)


def _numbers(given: Sequence[float | None]) -> NDArray[np.float64]:
    """float64[n], NaN for None."""
    return np.array([np.nan if each is None else each for each in given], np.float64)
