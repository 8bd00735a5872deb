"""Who did what with which content: what taste is fitted on, out of a decision log or a mesh's archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.archive import reader as archive
from banditmesh.bandits import hashing
from banditmesh.bandits.feedback import KINDS
from banditmesh.decisions.reader import read
from banditmesh.runtime.errors import InvalidArgument
from banditmesh.runtime.store import Store

_KIND_OF: Final = {"click": "click", "target": "target", "mute": "dislike"}
"""By the reaction's name. What a dwell is worth is not in the archive; its click is."""
_COLUMNS: Final = ("user", "service", "content", "impression_time", "reactions", "outcome")


@dataclass(frozen=True, eq=False)
class Interactions:
    """Feedback of many users, in the order of time.

    Attributes:
        users: int64[m], from 0.
        contents: uint64[m], content keys.
        kinds: int64[m], places in `feedback.KINDS`.
        amounts: float32[m]; see `Feedback`.
        times_s: float64[m], seconds since 1970.
        services: By content key, its service's key.
        n_users: How many users there are.
    """

    users: NDArray[np.int64]
    contents: NDArray[np.uint64]
    kinds: NDArray[np.int64]
    amounts: NDArray[np.float32]
    times_s: NDArray[np.float64]
    services: dict[int, int]
    n_users: int

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Interactions:
        """Those rows; users keep their numbers."""
        return Interactions(
            self.users[rows],
            self.contents[rows],
            self.kinds[rows],
            self.amounts[rows],
            self.times_s[rows],
            self.services,
            self.n_users,
        )

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, str, str, float, float]]) -> Interactions:
        """From (user, service, content id, kind, amount, time), in any order."""
        users: dict[str, int] = {}
        services: dict[int, int] = {}
        flat: list[tuple[int, int, int, float, float]] = []
        for user, service, content, kind, amount, time_s in rows:
            key = hashing.content_key(service, content)
            services.setdefault(key, hashing.service_key(service))
            flat.append((users.setdefault(user, len(users)), key, KINDS.index(kind), amount, time_s))
        flat.sort(key=lambda row: row[4])
        columns = list(zip(*flat, strict=True)) or [()] * 5
        return cls(
            np.array(columns[0], np.int64),
            np.array(columns[1], np.uint64),
            np.array(columns[2], np.int64),
            np.array(columns[3], np.float32),
            np.array(columns[4], np.float64),
            services,
            len(users),
        )


def of_log(path: Path, liked: float, disliked: float | None, service: str) -> Interactions:
    """The rows of a decision log that say what a user did: a reward of at least ``liked`` is a click, one of at most
    ``disliked`` a dislike. ``service``: of contents whose rows name none.

    Raises:
        BrokenRow, NotFound, InvalidArgument: As `decisions.reader.read` does; also for a log without users.
    """
    rows = []
    for decision in read(path):
        if decision.user is None or decision.shown is None or decision.reward is None:
            continue
        kind = "click" if decision.reward >= liked else None
        if kind is None and disliked is not None and decision.reward <= disliked:
            kind = "dislike"
        if kind is not None:
            at = decision.shown
            rows.append((decision.user, decision.services[at] or service, decision.ids[at], kind, 1.0, decision.time_s))
    if not rows:
        raise InvalidArgument(
            f"{path}: no row has a user and a reward of at least {liked:g}", field="log", value=str(path)
        )
    return Interactions.of(rows)


async def of_archive(store: Store, placements: Sequence[str], start: datetime, end: datetime) -> Interactions:
    """The reactions of archived examples; every kind that came, once for an impression.

    Raises:
        InvalidArgument: There are none.
        MeshError: The store's.
    """
    rows = []
    for placement in placements:
        async for batch in archive.read(store, placement, start, end, columns=_COLUMNS):
            for row in batch.to_pylist():
                time_s = row["impression_time"].replace(tzinfo=UTC).timestamp()
                for reaction in row["reactions"] or [row["outcome"]]:
                    kind = _KIND_OF.get(reaction.split(":", 1)[0])
                    if kind is not None and row["user"]:
                        rows.append((row["user"], row["service"], row["content"], kind, 1.0, time_s))
    if not rows:
        raise InvalidArgument(
            f"the archive of {', '.join(placements)} has no reactions from {start:%Y-%m-%d %H:%M} to "
            f"{end:%Y-%m-%d %H:%M}",
            field="since",
            hint="compare with: banditmesh archive ls",
        )
    return Interactions.of(rows)
