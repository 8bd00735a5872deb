"""Variants that are stopped: written by the learner's guardrails, followed by engines, taken back by people.

``experiments/<placement>/stops.json`` in the store: who stopped what, when and why, and who resumed it. It moves by
compare-and-set, so of two writers none undoes what the other did. A variant that was stopped stays so, also when
``mesh.yaml`` changes, until somebody resumes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic import TypeAdapter, ValidationError

from banditmesh.runtime.errors import Aborted, AlreadyExists, DataLoss, MeshError, NotFound
from banditmesh.runtime.store import Store

HISTORY: Final = 100
"""Entries that are kept, the newest ones."""
_ATTEMPTS: Final = 10


@dataclass(frozen=True)
class Entry:
    """One stop, or one resumption.

    Attributes:
        action: ``stopped`` or ``resumed``.
        at_ms: milliseconds since the Unix epoch, by the writer's clock.
        who: a guardrail of a learner, or a caller.
        why: in words.
    """

    variant: str
    action: str
    at_ms: int
    who: str
    why: str


@dataclass(frozen=True)
class Stopped:
    """The file. ``stopped``: in force, by variant. ``history``: what happened, the oldest first."""

    stopped: dict[str, Entry] = field(default_factory=dict)
    history: tuple[Entry, ...] = ()
    etag: str = ""
    """Of the object; empty: there is none yet."""


_STOPPED = TypeAdapter(Stopped)


class Stops:
    """Reads and writes. Methods raise the store's errors, and DataLoss when a file cannot be understood."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, placement: str) -> Stopped:
        """What is stopped."""
        try:
            found = await self._store.get(_key(placement))
        except NotFound:
            return Stopped()
        return _read(placement, found.body, found.etag)

    async def moved(self, placement: str, since: Stopped) -> Stopped | None:
        """What is stopped, if it is something else than ``since``; a cheap question."""
        if not since.etag:
            found = await self.get(placement)
            return found if found.etag else None
        try:
            changed = await self._store.get_if_changed(_key(placement), since.etag)
        except NotFound:
            return Stopped()
        return None if changed is None else _read(placement, changed.body, changed.etag)

    async def stop(self, placement: str, entries: Sequence[Entry]) -> Stopped:
        """Stop variants; one that is stopped already keeps its entry."""

        def change(now: Stopped) -> Stopped:
            new = [each for each in entries if each.variant not in now.stopped]
            return replace(
                now,
                stopped={**now.stopped, **{each.variant: each for each in new}},
                history=(*now.history, *new)[-HISTORY:],
            )

        return await self._change(placement, change)

    async def resume(self, placement: str, entry: Entry) -> Entry:
        """Take a stop back; returns it. Raises NotFound when the variant is not stopped."""
        before: list[Entry] = []

        def change(now: Stopped) -> Stopped:
            if entry.variant not in now.stopped:
                raise NotFound(
                    "is not stopped",
                    field="variant",
                    value=entry.variant,
                    hint=f"stopped are: {', '.join(now.stopped) or 'none'}",
                )
            before[:] = [now.stopped[entry.variant]]
            left = {name: each for name, each in now.stopped.items() if name != entry.variant}
            return replace(now, stopped=left, history=(*now.history, entry)[-HISTORY:])

        await self._change(placement, change)
        return before[0]

    async def _change(self, placement: str, change: Callable[[Stopped], Stopped]) -> Stopped:
        error: MeshError | None = None
        for _ in range(_ATTEMPTS):
            now = await self.get(placement)
            changed = change(now)
            if (changed.stopped, changed.history) == (now.stopped, now.history):
                return now
            body = _STOPPED.dump_json(replace(changed, etag=""), indent=1)
            try:
                if now.etag:
                    etag = await self._store.replace(_key(placement), body, now.etag)
                else:
                    etag = await self._store.put_new(_key(placement), body)
                return replace(changed, etag=etag)
            except (Aborted, AlreadyExists) as lost:  # somebody else was faster
                error = lost
        assert error is not None
        raise error


def _key(placement: str) -> str:
    return f"experiments/{placement}/stops.json"


def _read(placement: str, body: bytes, etag: str) -> Stopped:
    try:
        return replace(_STOPPED.validate_json(body), etag=etag)
    except ValidationError as error:
        raise DataLoss(
            f"{_key(placement)} cannot be read: {error.errors(include_url=False)[0]['msg']}",
            hint="what engines have in memory stays in force; mend the file, or delete it to resume everything",
        ) from error
