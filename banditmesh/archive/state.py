"""How far each partition is archived.

A state is changed by compare-and-set alone. A range goes through two changes: *begun* (it is said which offsets it has)
and *complete* (all of its files are there). Whoever finds a begun range writes its files again, under the same names,
and completes it: what is there already stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from banditmesh.archive.layout import Kind, Range, state_key, state_prefix
from banditmesh.runtime.errors import Aborted, AlreadyExists, DataLoss, NotFound
from banditmesh.runtime.store import Store


@dataclass(frozen=True)
class Gap:
    """Offsets that will never be in the archive: retention took them first."""

    start: int
    end: int
    noticed_at_ms: int


@dataclass(frozen=True)
class Mark:
    """What is known of a partition at an offset.

    Attributes:
        time_ms: Broker time of the last record before it, the highest so far.
        shown_ms: Broker time of impressions up to which all examples stand before it.
        sources: Partition of `impressions` → its log, and the offset of the last impression that was archived: what
            comes a second time is at or before it.
    """

    time_ms: int = 0
    shown_ms: int = 0
    sources: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """How far a partition is archived.

    Attributes:
        next: Everything before this offset is archived, or in a gap.
        begun: Where the range ends that is being written; equal to `next` when none is.
        first: Where the archive of this log begins.
        mark: At `next`.
        begun_mark: At `begun`.
        gaps: What retention took.
        again: Before this offset Kafka, which had lost records, has given numbers a second time: two rows may have one.
    """

    next: int = 0
    begun: int = 0
    first: int = 0
    mark: Mark = Mark()
    begun_mark: Mark = Mark()
    gaps: tuple[Gap, ...] = ()
    again: int = 0

    @property
    def is_begun(self) -> bool:
        """Whether a range is being written, or was when its writer died."""
        return self.begun > self.next

    def begin(self, end: int, mark: Mark) -> State:
        """With a range begun that ends there."""
        return replace(self, begun=end, begun_mark=mark)

    def complete(self) -> State:
        """With the begun range complete."""
        return replace(self, next=self.begun, mark=self.begun_mark)

    def skip(self, first: int, noticed_at_ms: int) -> State:
        """With what lies before an offset noted as lost: the log begins there by now. Of a range that is begun, what
        is left can still be written."""
        gap = Gap(self.next, first, noticed_at_ms)
        if first < self.begun:
            return replace(self, next=first, gaps=(*self.gaps, gap))
        done = self.complete() if self.is_begun else self
        return replace(done, next=first, begun=first, begun_mark=done.mark, gaps=(*self.gaps, gap))

    def go_back(self, position: int) -> State:
        """With what the log ends before: it has lost records that are archived, and gives their offsets to others."""
        return State(position, position, self.first, self.mark, again=max(self.again, self.begun, self.next))


_STATE = TypeAdapter(State)


@dataclass(frozen=True)
class Held:
    """A state as it was read, with what it takes to change it. ``etag`` None: there is none in the store yet."""

    state: State
    etag: str | None = field(compare=False)


class States:
    """The states of one kind. Methods raise the store's errors besides those that they name."""

    def __init__(self, store: Store, kind: Kind) -> None:
        self._store = store
        self._kind = kind

    async def get(self, log: int, partition: int) -> Held | None:
        """The state of a partition; None when there is none. Raises DataLoss when it cannot be read."""
        key = state_key(self._kind, log, partition)
        try:
            found = await self._store.get(key)
        except NotFound:
            return None
        return Held(_parsed(key, found.body), found.etag)

    async def put(self, log: int, partition: int, state: State, held: Held | None) -> Held:
        """Change a state. Raises Aborted when it is not any more what was read."""
        key = state_key(self._kind, log, partition)
        body = json.dumps(asdict(state)).encode()
        try:
            if held is None or held.etag is None:
                return Held(state, await self._store.put_new(key, body))
            return Held(state, await self._store.replace(key, body, held.etag))
        except AlreadyExists as error:
            raise Aborted("somebody else archives this partition", field="key", value=key) from error

    async def all(self) -> Mapping[tuple[int, int], State]:
        """Every state, by log and partition."""
        found = {}
        async for key in self._store.list(state_prefix(self._kind)):
            log, _, partition = key.rpartition("/")[2].removesuffix(".json").partition("-p")
            try:
                found[int(log, 16), int(partition)] = _parsed(key, (await self._store.get(key)).body)
            except (ValueError, NotFound):
                continue
        return found


def is_complete(part: Range, states: Mapping[tuple[int, int], State]) -> bool:
    """Whether a range's rows count: all of its files are there, or, where a state was put back, the archiver goes on
    behind them (`present`)."""
    state = states.get((part.log, part.partition))
    return state is not None and part.start < state.next


async def complete_until(store: Store, kind: Kind = "examples", *, logs: frozenset[int] | None = None) -> datetime:
    """The time before which, by broker times of examples, everything is archived; 1970 when nothing is.

    An example comes a join window after its impression at the earliest: what was shown an hour and a window before
    this time is there as a whole.

    Args:
        logs: The logs to look at; None: of each partition the one that is furthest, so that a topic that was made anew
            does not hold the answer for ever.
    """
    newest: dict[int, int] = {}
    for (log, partition), state in (await States(store, kind).all()).items():
        if logs is None or log in logs:
            newest[partition] = max(newest.get(partition, 0), state.mark.time_ms)
    return datetime.fromtimestamp(min(newest.values(), default=0) / 1000, UTC)


def _parsed(key: str, body: bytes) -> State:
    try:
        return _STATE.validate_json(body)
    except ValidationError as error:
        raise DataLoss(
            f"the archive's state cannot be read: {error.errors(include_url=False)[0]['msg']}",
            field="key",
            value=key,
            hint="restore a version of the object from before, or delete it: no row is archived twice",
        ) from error
