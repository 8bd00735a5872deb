"""What flows through the pipeline: a batch is a few groups, a group is flat arrays with offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing, segments
from banditmesh.bandits.batch import Candidates, Scores
from banditmesh.bandits.exploration.choice import Choice, Explores
from banditmesh.bandits.exploration.constraint import Constraint
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine.catalog import ABSENT, Catalog
from services.crs_engine.compiled_placement import CompiledPlacement, Layout
from services.crs_engine.models import LoadedModel
from services.crs_engine.user_features import ProfileRows

Mask = NDArray[np.bool_]
_SALTS = hashing.mix64(np.arange(1, 1025, dtype=np.uint64))


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """A request for a selection; what is wrong with it was found before."""

    placement: str
    user_id: str
    context: Mapping[str, str]
    count: int = 1
    """How many contents are wanted; more than one: a ranked list."""


@dataclass(frozen=True, eq=False)
class Group:
    """The requests of a batch that take the same way: one placement, one count. Users of one variant stand together.

    Attributes:
        positions: Positions of the requests in the batch.
        variants: int64[n_users], ascending, positions in ``placement.variants``.
    """

    placement: CompiledPlacement
    count: int
    requests: Sequence[SelectionRequest]
    positions: Sequence[int]
    variants: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.requests)

    @cached_property
    def by_variant(self) -> list[tuple[int, slice]]:
        """Each variant that somebody is in, and where its users stand."""
        borders = np.flatnonzero(np.diff(self.variants)) + 1
        starts = [0, *borders.tolist()]
        return [
            (int(self.variants[start]), slice(start, end))
            for start, end in zip(starts, [*starts[1:], len(self)], strict=True)
        ]


class UserValues(NamedTuple):
    """What Redis has of a group's users.

    Attributes:
        layout: By which it was asked for.
        rows: For each user the values in the order of :meth:`Layout.keys`.
        reached: False: Redis is away, and the values are those that this process remembers.
    """

    layout: Layout
    rows: Sequence[Sequence[bytes | None]]
    reached: bool


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """What is known of a group's users.

    Attributes:
        reached: Whether Redis answered; False: all of this is what the process remembers, mostly nothing.
        profiles: JSON of each profile; empty where there is none.
        profile_rows: The features of the profiles, and which services the users use.
        records: What the users did and were shown lately.
        muted_until_s: float64[n_users], until when the slot stays empty after a mute; 0 where it does not.
        vectors: float32[n_users, d], where they are in the space of contents' vectors; None where no model asks.
    """

    reached: bool
    profiles: Sequence[bytes]
    profile_rows: ProfileRows
    records: UserRecords
    muted_until_s: NDArray[np.float64]
    vectors: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """Candidates of all users of a group, flat: user i owns offsets[i]:offsets[i + 1].

    Attributes:
        offsets: int64[n_users + 1].
        contents: uint64[n], content keys.
        services: uint64[n], service keys.
        sources: int64[n], positions in ``placement.sources``.
        rows: int64[n], rows of the catalog; -1 where the content is not known. Empty before hydration.
        said: float32[n, 2], the score that each candidate's source gave it and its rank there, from 0; None where the
            placement makes no feature of them.
    """

    offsets: NDArray[np.int64]
    contents: NDArray[np.uint64]
    services: NDArray[np.uint64]
    sources: NDArray[np.int64]
    rows: NDArray[np.int64]
    said: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.contents)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """int64[n]: the user of each candidate."""
        return segments.owners(self.offsets)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """int64[n_users]: how many candidates each user has."""
        return segments.lengths(self.offsets)

    def keep(self, mask: Mask) -> Pool:
        """The candidates that ``mask`` (bool[n]) says."""
        if mask.all():
            return self
        return Pool(
            segments.kept_offsets(self.offsets, mask),
            self.contents[mask],
            self.services[mask],
            self.sources[mask],
            self.rows[mask],
            None if self.said is None else self.said[mask],
        )


@dataclass(frozen=True, eq=False)
class View:
    """A hydrated pool with all that is known around it: what filters and rules look at."""

    placement: CompiledPlacement
    users: Users
    pool: Pool
    catalog: Catalog
    now_s: float

    @cached_property
    def flags(self) -> NDArray[np.uint8]:
        """uint8[n]: the flags of the contents; ABSENT also where the catalog has no row."""
        return np.where(self.pool.rows >= 0, self.catalog.flags(self.pool.rows), ABSENT)

    @cached_property
    def salts(self) -> NDArray[np.uint64]:
        """uint64[n_users]: see :func:`user_salts`."""
        return user_salts(len(self.pool.offsets) - 1)

    @cached_property
    def salted_contents(self) -> NDArray[np.uint64]:
        """uint64[n]: the content keys, salted with their user."""
        return self.pool.contents ^ np.repeat(self.salts, self.pool.counts)

    @cached_property
    def ordered_contents(self) -> NDArray[np.uint64]:
        """uint64[n]: the salted content keys, ascending."""
        return np.sort(self.salted_contents)

    def matches(
        self,
        salted: NDArray[np.uint64],
        ordered: NDArray[np.uint64],
        owners: NDArray[np.int64],
        keys: NDArray[np.uint64],
    ) -> Mask | None:
        """bool[n]: which salted keys (uint64[n]) are among the keys (uint64[m]) that belong to the same users
        (``owners``: int64[m]); None when none is. ``ordered``: the salted keys, ascending."""
        wanted = keys ^ self.salts[owners]
        # The few are looked up among the many, which is quick and mostly finds nothing; only what was found is then
        # looked for the other way round.
        hits = np.sort(wanted[_among(wanted, ordered)])
        return _among(salted, hits) if len(hits) else None


def user_salts(n: int) -> NDArray[np.uint64]:
    """uint64[n]: a hash of each user's place, to be xor-ed to keys that must only match within one user."""
    return _SALTS[:n] if n <= len(_SALTS) else hashing.mix64(np.arange(1, n + 1, dtype=np.uint64))


def _among(keys: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> Mask:
    """bool[n]: which of the keys (uint64[n]) are in a list (uint64[m], ascending, not empty)."""
    found: Mask = ordered.take(np.searchsorted(ordered, keys), mode="clip") == keys
    return found


class RuleConstraint(Constraint, Protocol):
    """A constraint that can say why."""

    @property
    def shares(self) -> NDArray[np.float64] | None:
        """float64[n_candidates]: where what it adds to scores is a share of their absolute value, that share."""
        ...

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """Why the candidate at that place in the pool is blocked, or its score moved, after ``before`` (see
        `Constraint.blocks`)."""
        ...


@dataclass(frozen=True, eq=False)
class Round:
    """Candidates that went through filters, features, score and draw together.

    Attributes:
        origin: What the contents chosen in this round say of where they come from.
        models: The models that scored, by name; empty where it was none of the variants'.
        view: All candidates that were proposed.
        removed_by: int8[n_proposed], position in the placement's filters, or ``filters.KEPT``.
        pool: The candidates that were kept.
        candidates: The same candidates with the features that they were scored by.
        scores: The scores of the same candidates.
        explores: What gave them their probabilities.
        constraints: What could block them, by the rule's name.
        choice: [n_users, n] each; the flat index is a place in ``pool``.
        first: int64[n_users], the position in the user's list that the choice's first column stands for.
        featured: Whether all candidates have their features; if not, what is shown gets them for its token.
        versions: int64[n_users], which version of the variant's model scored, where it is not the loaded one.
    """

    origin: events_pb2.Origin.ValueType
    models: Mapping[str, LoadedModel]
    view: View
    removed_by: NDArray[np.int8]
    pool: Pool
    candidates: Candidates
    scores: Scores
    explores: Explores
    constraints: Mapping[str, RuleConstraint]
    choice: Choice
    first: NDArray[np.int64]
    featured: bool = True
    versions: NDArray[np.int64] | None = None

    @cached_property
    def shown(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """int64[n_shown] each: user, column of ``choice`` and place in ``pool`` of what was chosen, user by user."""
        users, columns = np.nonzero(self.choice.chosen >= 0)
        return users, columns, self.choice.chosen[users, columns]

    def version(self, user: int, model: str) -> int:
        """Which version of the user's model scored, a cached one perhaps; 0: no model did."""
        if self.versions is not None:
            return int(self.versions[user])
        return self.models[model].version if self.models else 0


@dataclass(frozen=True, eq=False)
class Slate:
    """The lists of a group's users as they stand after some rounds; after the last one, what is shown.

    Attributes:
        filled: int64[n_users], positions that are filled.
        open: int64[n_users], positions that are still to be filled; none where the slot is muted.
    """

    group: Group
    users: Users
    filled: NDArray[np.int64]
    open: NDArray[np.int64]
    rounds: tuple[Round, ...] = ()

    @classmethod
    def empty(cls, group: Group, users: Users) -> Slate:
        """Before the first round."""
        free = users.muted_until_s == 0
        return cls(group, users, np.zeros(len(group), np.int64), free * group.count)

    @cached_property
    def contents(self) -> NDArray[np.uint64]:
        """uint64[n_users, count]: the content key at each position that is filled, else 0."""
        keys = np.zeros((len(self.group), self.group.count), np.uint64)
        for each in self.rounds:
            users, columns, at = each.shown
            keys[users, each.first[users] + columns] = each.pool.contents[at]
        return keys

    @cached_property
    def sources(self) -> NDArray[np.int64]:
        """int64[n_users, count]: the source at each position that is filled, else -1."""
        found = np.full((len(self.group), self.group.count), -1)
        for each in self.rounds:
            users, columns, at = each.shown
            found[users, each.first[users] + columns] = each.pool.sources[at]
        return found


class Outcome(NamedTuple):
    """What to show for a request, the first position first; ``empty`` says why it is nothing.

    Attributes:
        contents: Serialised ``SelectedContent`` messages.
    """

    contents: Sequence[bytes]
    empty: pb.NoContent | None = None


@dataclass(frozen=True, eq=False)
class Ranked:
    """What the cache has for a group's users.

    Attributes:
        hits: bool[n_users], whose entry holds.
        pool: Their candidates; nobody else has any.
        scores: Of those.
        versions: int64[n_users], which version of the model scored.
        results: How many users' entries held, or why not: hit, absent, target, model, age, content, placement, context.
    """

    hits: Mask
    pool: Pool
    scores: Scores
    versions: NDArray[np.int64]
    results: Mapping[str, int]


class Answered(NamedTuple):
    """A group's lists, and the answers made of them, in the order of the group's requests. ``cached``: what the cache
    had for it; None: it has none."""

    slate: Slate
    outcomes: Sequence[Outcome]
    cached: Ranked | None = None
