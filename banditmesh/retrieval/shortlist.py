"""The first step of `density`'s search: which contents are worth an exact look, for a batch of users at once.

A score for every pair of content and user is bound by memory and not by arithmetic, so the users of a batch share each
read of the contents, and a block's scores are worked out while they are in the cache. Contents stand in rows and users
in columns: a product of a long matrix with a narrow one is twice as fast that way round (OpenBLAS 0.3.31, float32).

No sorting either. Contents fall into groups, and of each group the best score is kept; the k-th largest of those is a
floor below which none of the k best scores can be, for at least k contents reach it. What reaches the floor is taken:
all k best, and a few more where two of them share a group.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_GROUP: Final = 16
"""Contents in a group at most, ..."""
_GROUPS_PER_WANTED: Final = 8
"""... and groups for each content that is wanted at least, so that few of these share one."""
_CELLS: Final = 131_072
"""Scores of a block: 512 KiB, and as much for what they are divided by."""
_USERS: Final = 32
"""Share a read of the contents; more would need more memory and save nothing."""
_MOST_TIMES: Final = 2
"""More than so many times as many contents as were wanted reach the floor only where scores are equal."""


def shortlist(
    users: tuple[Floats, Floats], contents: tuple[Floats, Floats], prior: Floats, smoothing: float, wanted: int
) -> list[NDArray[np.int64]]:
    """The contents with the highest (max(u·c, 0) + prior) / (max(u'·c', 0) + smoothing) for each user, in no order:
    the ``wanted`` best and at most as many again.

    Args:
        users: ``float32[n_users, r]`` each, u and u'.
        contents: ``float32[n, r]`` each, c and c'.
        prior: ``float32[n]``; -inf: the content is not taken.
        smoothing: Above 0.
        wanted: At most the contents whose prior is finite.
    """
    n_users = len(users[0])
    if not wanted:
        return [np.zeros(0, np.int64)] * n_users
    group = min(max(len(prior) // (_GROUPS_PER_WANTED * wanted), 1), _GROUP)
    found: list[NDArray[np.int64]] = []
    for start in range(0, n_users, _USERS):
        some = users[0][start : start + _USERS], users[1][start : start + _USERS]
        scores, best = _scored(some, contents, prior, np.float32(smoothing), group)
        found += _above_floor(scores, best, wanted)
    return found


def _scored(
    users: tuple[Floats, Floats], contents: tuple[Floats, Floats], prior: Floats, smoothing: np.float32, group: int
) -> tuple[Floats, Floats]:
    """``float32[n, n_users]``, the scores, and ``float32[n_groups, n_users]``, the best of each group."""
    n, n_users = len(prior), len(users[0])
    above, below = (np.ascontiguousarray(each.T) for each in users)
    block = _CELLS // n_users // group * group
    scores = np.empty((n, n_users), np.float32)
    divisors = np.empty((min(block, n), n_users), np.float32)
    best = []
    for start in range(0, n, block):
        end = min(start + block, n)
        score, divisor = scores[start:end], divisors[: end - start]
        np.matmul(contents[0][start:end], above, out=score)
        np.maximum(score, 0, out=score)
        score += prior[start:end, None]
        np.matmul(contents[1][start:end], below, out=divisor)
        np.maximum(divisor, 0, out=divisor)
        divisor += smoothing
        score /= divisor
        grouped = (end - start) // group * group
        best += [score[:grouped].reshape(group, -1, n_users).max(axis=0), score[grouped:]]
    return scores, np.concatenate(best)


def _above_floor(scores: Floats, best: Floats, wanted: int) -> list[NDArray[np.int64]]:
    """``int64[at least wanted]`` for each user: the rows of ``scores`` that reach the floor."""
    n_users = scores.shape[1]
    floor = np.full(n_users, -np.inf, np.float32)
    if len(best) >= wanted:
        floor = np.partition(np.ascontiguousarray(best.T), len(best) - wanted, axis=1)[:, len(best) - wanted]
    # What may not be taken is -inf, and a floor of -inf would take it.
    np.maximum(floor, np.finfo(np.float32).min, out=floor)
    rows, owners = np.divmod(np.flatnonzero(scores >= floor), n_users)
    order = np.argsort(owners.astype(np.uint8), kind="stable")
    each = np.split(rows[order], np.cumsum(np.bincount(owners, minlength=n_users))[:-1])
    return [_fewer(rows, scores[rows, user], wanted) for user, rows in enumerate(each)]


def _fewer(rows: NDArray[np.int64], scores: Floats, wanted: int) -> NDArray[np.int64]:
    """The best of rows, where there are too many."""
    if len(rows) <= _MOST_TIMES * wanted:
        return rows
    return rows[np.argpartition(scores, len(rows) - wanted)[len(rows) - wanted :]]
