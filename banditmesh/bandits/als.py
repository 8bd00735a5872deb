"""Implicit ALS: taste as factors of contents, and a user worked out from the feedback that is remembered.

Hu, Koren and Volinsky (2008), Equation 4: given the factors Y of the contents, a user's row is the least-squares
solution

    x_u = (Y^T Y + Y^T (C^u - I) Y + lambda I)^-1 Y^T C^u p(u),

with confidence c_ui in what the user did with content i, and preference p_ui = 1 where it was good, 0 where it was not.
Contents that the user never touched have c = 1, p = 0, which is why Y^T Y is worked out once for all users. A disliked
content has a confidence and p = 0, as in the package `implicit`, where it is a negative number of the matrix.

Y comes from a fit (`banditmesh als fit`); nothing is learned on-line. The row of a user is worked out at the request,
so feedback counts at once, and it is exactly the row that a refit of the user against the same Y would give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Candidates, Examples, Scores, require_finite
from banditmesh.bandits.errors import InvalidTensors, NotMergeable
from banditmesh.bandits.feedback import KINDS, Feedback
from banditmesh.bandits.policy import PolicyParams, Tensors, tensor

_TARGET, _CLICK, _DWELL, _RATING, _DISLIKE = range(len(KINDS))


class AlsParams(PolicyParams):
    """Parameters of `als`."""

    factors: int = Field(default=64, ge=1, le=512, description="Length of the vector of a content and of a user.")
    regularization: float = Field(default=10.0, gt=0, description="lambda: how strongly vectors are held near 0.")
    iterations: int = Field(default=15, ge=1, le=1000, description="Of the fit: users and contents in turns.")
    click: float = Field(default=1.0, ge=0, description="Confidence that a click gives.")
    target: float = Field(default=3.0, ge=0, description="Confidence that a target action gives.")
    dwell: float = Field(default=0.0, ge=0, description="Confidence that a minute of dwelling gives.")
    rating: float = Field(default=1.0, ge=0, description="Confidence for each star above (or below) `middle_rating`.")
    middle_rating: float = Field(default=2.5, description="The rating that says nothing; what is below it is disliked.")
    feedback: int = Field(
        default=50,
        ge=1,
        le=100,
        description="Of so many contents is remembered what a user did with each, the last ones.",
    )
    dislike: float = Field(default=1.0, ge=0, description="Confidence that a mute gives that it is not liked.")


class Confidences(NamedTuple):
    """What is known of users' tastes, each pair of user and content once.

    Attributes:
        users: int64[m], ascending.
        contents: uint64[m], content keys.
        values: float64[m], never 0; below 0: the content is disliked, with that confidence.
    """

    users: NDArray[np.int64]
    contents: NDArray[np.uint64]
    values: NDArray[np.float64]


def confidences(
    params: AlsParams,
    users: NDArray[np.int64],
    contents: NDArray[np.uint64],
    kinds: NDArray[np.int64],
    amounts: NDArray[np.float32],
) -> Confidences:
    """The confidences that events give: those of one user with one content add up. The fit and the fold-in share this.

    Args:
        users, contents, kinds, amounts: of each event; see `Feedback`.
    """
    per_unit = np.array([params.target, params.click, params.dwell / 60.0, params.rating, -params.dislike])
    units = amounts.astype(np.float64)
    units = np.where(kinds == _RATING, units - params.middle_rating, units)
    units = np.where((kinds == _RATING) | (kinds == _DWELL), units, 1.0)
    order = np.lexsort((contents, users))
    users, contents, values = users[order], contents[order], (per_unit[kinds] * units)[order]
    first = np.ones(len(users), np.bool_)
    first[1:] = (users[1:] != users[:-1]) | (contents[1:] != contents[:-1])
    starts = np.flatnonzero(first)
    summed = np.add.reduceat(values, starts) if len(starts) else values
    said = summed != 0
    return Confidences(users[starts][said], contents[starts][said], summed[said])


class Als:
    """See the module. Without a fit it knows no content, and says 0 of each."""

    name: ClassVar[str] = "als"
    Params: ClassVar[type[PolicyParams]] = AlsParams
    learns: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    shares: ClassVar[bool] = False

    def __init__(self, params: AlsParams | None = None) -> None:
        self.params = params or AlsParams()
        self._keep(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros((0, self.params.factors), np.float32))

    @classmethod
    def fitted(
        cls,
        params: AlsParams,
        keys: NDArray[np.uint64],
        services: NDArray[np.uint64],
        factors: NDArray[np.float32],
    ) -> Self:
        """With the factors that a fit has found: keys and service keys uint64[n] of the contents, float32[n, f]."""
        policy = cls(params)
        order = np.argsort(keys)
        policy._keep(keys[order], services[order], np.ascontiguousarray(factors[order], np.float32))
        return policy

    def _keep(
        self,
        keys: NDArray[np.uint64],
        services: NDArray[np.uint64],
        factors: NDArray[np.float32],
        gram: NDArray[np.float64] | None = None,
    ) -> None:
        self.keys, self.services, self.factors = keys, services, factors
        if gram is None:
            wide = factors.astype(np.float64)
            gram = wide.T @ wide
        self._gram = gram
        self._base = gram + self.params.regularization * np.eye(self.params.factors)

    def rows(self, contents: NDArray[np.uint64]) -> NDArray[np.int64]:
        """int64[n]: the row of each content in `factors`; -1 where the fit did not know it."""
        if not len(self.keys):
            return np.full(len(contents), -1)
        at = np.minimum(np.searchsorted(self.keys, contents), len(self.keys) - 1)
        return np.where(self.keys[at] == contents, at, -1)

    def users(self, feedback: Feedback) -> NDArray[np.float64]:
        """float64[n_decisions, f]: each user's row; 0 for one of whom nothing is known that the fit knew."""
        found = confidences(self.params, feedback.owners, feedback.contents, feedback.kinds, feedback.amounts)
        rows = self.rows(found.contents)
        known = rows >= 0
        users, rows, values = found.users[known], rows[known], found.values[known]
        out = np.zeros((len(feedback), self.params.factors))
        if not len(users):
            return out
        who, starts = np.unique(users, return_index=True)
        offsets = np.append(starts, len(users))
        places = np.arange(len(users)) - np.repeat(starts, segments.lengths(offsets))
        shape = (len(who), int(places.max()) + 1)
        at = (np.repeat(np.arange(len(who)), segments.lengths(offsets)), places)
        theirs = np.zeros((*shape, self.params.factors))
        theirs[at] = self.factors[rows]
        excess, liked = np.zeros(shape), np.zeros(shape)
        excess[at] = np.abs(values) - 1.0
        liked[at] = np.maximum(values, 0.0)
        left = self._base + np.swapaxes(theirs * excess[:, :, None], 1, 2) @ theirs
        right = np.einsum("um,umf->uf", liked, theirs)
        out[who] = solved(left, right)
        return out

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`: x_u · y_i, about 1 for what the user would like; 0 where either is not known."""
        mean = np.zeros(len(candidates), np.float32)
        if candidates.feedback is not None and len(self.keys):
            rows = self.rows(candidates.contents)
            known = np.flatnonzero(rows >= 0)
            users = self.users(candidates.feedback)[segments.owners(candidates.offsets)[known]]
            mean[known] = np.einsum("nf,nf->n", users, self.factors[rows[known]])
        return Scores(mean, np.zeros(len(candidates), np.float32))

    def knows(self, candidates: Candidates) -> NDArray[np.bool_]:
        """bool[n_candidates]: of which pair of user and content it has something to say."""
        feedback = candidates.feedback
        if feedback is None or not len(self.keys):
            return np.zeros(len(candidates), np.bool_)
        has = np.bincount(feedback.owners[self.rows(feedback.contents) >= 0], minlength=len(feedback)) > 0
        return has[segments.owners(candidates.offsets)] & (self.rows(candidates.contents) >= 0)

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`: nothing is learned from examples; broken ones are refused as everywhere."""
        require_finite(rewards=examples.rewards, times_s=examples.times_s, features=examples.features.values)

    def start_epoch(self) -> None:
        """See `Policy.start_epoch`."""

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: "keys", "services", "factors" and "gram", which is Y^T Y."""
        return {
            "keys": self.keys.copy(),
            "services": self.services.copy(),
            "factors": self.factors.copy(),
            "gram": self._gram.copy(),
        }

    @classmethod
    def from_tensors(cls, params: AlsParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        policy = cls(params)
        keys = tensor(tensors, "keys", np.uint64, (None,))
        if (keys[1:] <= keys[:-1]).any():
            raise InvalidTensors("must rise strictly", field="keys")
        factors = tensor(tensors, "factors", np.float32, (len(keys), params.factors))
        gram = tensor(tensors, "gram", np.float64, (params.factors, params.factors))
        policy._keep(keys, tensor(tensors, "services", np.uint64, (len(keys),)), factors)
        # Of another Y^T Y a user's system may have no solution, and every request would find out anew.
        if not np.allclose(gram, policy._gram, rtol=1e-3, atol=1e-3 * np.abs(policy._gram).max(initial=0.0)):
            raise InvalidTensors("is not that of the factors", field="gram")
        policy._keep(keys, policy.services, factors, gram)
        return policy

    def merge(self, other: Self) -> None:
        """See `Policy.merge`: factors of two fits mean different things."""
        raise NotMergeable("factors of two fits do not add up; fit on all of the feedback", field="als")


def solved(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n, f]: the solutions of n symmetric positive definite systems, by Cholesky's factors L L^T.

    Args:
        left: float64[n, f, f].
        right: float64[n, f].
    """
    lower = np.linalg.cholesky(left)
    if len(left) < 4:  # a loop of 2 f steps is worth it only for several users at once
        half = np.linalg.solve(lower, right[:, :, None])
        return np.asarray(np.linalg.solve(np.swapaxes(lower, 1, 2), half)[:, :, 0])
    out = right.copy()
    size = out.shape[1]
    for at in range(size):
        out[:, at] = (out[:, at] - np.einsum("nk,nk->n", lower[:, at, :at], out[:, :at])) / lower[:, at, at]
    for at in reversed(range(size)):
        after = np.einsum("nk,nk->n", lower[:, at + 1 :, at], out[:, at + 1 :])
        out[:, at] = (out[:, at] - after) / lower[:, at, at]
    return out
