"""What a retriever is: it proposes contents that nobody mapped to a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Scores
from services.crs_engine.compiled_placement import CompiledPlacement, Retrieval
from services.crs_engine.pipeline.batch import Group, Mask, Users


@dataclass(frozen=True, eq=False)
class Asked:
    """Users that a retriever shall propose something to: those of one variant whose slot is not muted.

    Attributes:
        group: They are some of this group's.
        users: What is known of all of the group's users.
        who: int64[n], their places in the group, ascending.
        retrieval: How many contents, of which services.
        now_s: Seconds since the Unix epoch.
    """

    group: Group
    users: Users
    who: NDArray[np.int64]
    retrieval: Retrieval
    now_s: float

    def __len__(self) -> int:
        return len(self.who)


@dataclass(frozen=True, eq=False)
class Proposed:
    """What a retriever proposes, flat: user i (of those asked) owns offsets[i]:offsets[i + 1], the best first.

    Attributes:
        offsets: int64[n_asked + 1].
        contents: uint64[n], content keys.
        services: int64[n], positions in ``placement.services``.
        scores: float32[n], what the retriever thinks of each; a feature of the candidate.
    """

    offsets: NDArray[np.int64]
    contents: NDArray[np.uint64]
    services: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Retrieved:
    """Contents that are proposed to everybody in a placement, the best first.

    Attributes:
        contents: uint64[n], content keys.
        services: int64[n], positions in ``placement.services``.
        scores: float32[n].
    """

    contents: NDArray[np.uint64]
    services: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.contents)

    @classmethod
    def of(
        cls,
        contents: NDArray[np.uint64],
        service_keys: NDArray[np.uint64],
        scores: NDArray[np.float32],
        placement: CompiledPlacement,
    ) -> Retrieved:
        """The contents (uint64[n]) whose service the placement shows. ``service_keys``: uint64[n]."""
        same = service_keys[:, None] == placement.shown_services
        here = same.any(axis=1)
        return cls(contents[here], same[here].argmax(axis=1), scores[here])

    def to(self, asked: Asked) -> Proposed:
        """The same contents for each of the users, as far as they were asked for."""
        retrieval = asked.retrieval
        at = np.flatnonzero(retrieval.services[self.services])[: retrieval.share]
        n = len(asked)
        return Proposed(
            np.arange(n + 1) * len(at),
            np.tile(self.contents[at], n),
            np.tile(self.services[at], n),
            np.tile(self.scores[at], n),
        )


class Retriever(Protocol):
    """Proposes contents to users, a batch at a time, from what is in the process: nothing is awaited."""

    name: ClassVar[str]
    """As ``mesh.yaml`` calls it."""

    def propose(self, asked: Asked) -> Proposed:
        """What it proposes to these users now."""
        ...


class Everybodys(Retriever, Protocol):
    """A retriever that proposes the same to everybody, so that it needs no user: it may be a fallback."""

    def retrieve(self, placement: CompiledPlacement) -> Retrieved:
        """What it proposes in this placement now."""
        ...

    def score(self, placement: CompiledPlacement, candidates: Candidates) -> Scores:
        """What it thinks of the candidates; a fallback draws by it. Features are not filled in."""
        ...


def askers(group: Group, users: Users, free: Mask, retriever: str, now_s: float) -> list[Asked]:
    """The users of a group that a retriever proposes something to, variant by variant. ``free``: bool[n_users], whose
    slot is open."""
    found = []
    for variant, span in group.by_variant:
        retrieval = group.placement.variants[variant].retrievals.get(retriever)
        who = np.flatnonzero(free[span]) + span.start
        if retrieval is not None and len(who):
            found.append(Asked(group, users, who, retrieval, now_s))
    return found
