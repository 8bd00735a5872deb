"""A topic and its consumer groups in memory, behind the interface of ``banditmesh.runtime.stream.Source``.

Like the real one it rebalances eagerly: all members give up all their partitions before they are shared out anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.stream import Consumed, OutOfRange


class MemoryTopic:
    """One topic."""

    def __init__(self, partitions: int, *, name: str = "topic") -> None:
        self.name = name
        self.logs: list[list[Consumed]] = [[] for _ in range(partitions)]
        self.first: list[int] = [0] * partitions
        """First offset that retention has left."""
        self.committed: dict[tuple[str, int], int] = {}
        self.generation = 1
        """Another one: the topic was made anew."""
        self.away = False
        """Whether the broker answers nothing."""
        self._members: dict[str, list[MemorySource]] = {}
        self._rebalancing = asyncio.Lock()
        self._appended = asyncio.Event()

    async def append(self, partition: int, value: bytes, *, time_ms: int | None = None, gap: int = 0) -> int:
        """Append a record and return its offset. ``gap``: offsets left out before it, as by markers."""
        log = self.logs[partition]
        offset = (log[-1].offset + 1 if log else self.first[partition]) + gap
        log.append(Consumed(self.name, partition, offset, offset if time_ms is None else time_ms, b"", value))
        self._appended.set()
        return offset

    def delete_before(self, partition: int, offset: int) -> None:
        """What retention does."""
        self.first[partition] = offset
        self.logs[partition] = [record for record in self.logs[partition] if record.offset >= offset]

    def end(self, partition: int) -> int:
        """The next offset."""
        log = self.logs[partition]
        return log[-1].offset + 1 if log else self.first[partition]

    def source(self, group: str) -> MemorySource:
        """A new member, not yet in its group."""
        return MemorySource(self, group)

    async def join(self, member: MemorySource) -> None:
        members = self._members.setdefault(member.group, [])
        await self._rebalance(member.group, [*members, member])

    async def leave(self, member: MemorySource) -> None:
        members = self._members.get(member.group, [])
        if member in members:
            await self._rebalance(member.group, [each for each in members if each is not member])

    async def appended(self, timeout_s: float) -> None:
        """Wait for the next append."""
        self._appended.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._appended.wait()
        except TimeoutError:
            return

    async def _rebalance(self, group: str, members: list[MemorySource]) -> None:
        async with self._rebalancing:
            for member in self._members.get(group, []):
                if member in members:
                    await member.lose()
            self._members[group] = members
            for i, member in enumerate(members):
                member.gain(frozenset(range(i, len(self.logs), len(members))))


class MemorySource:
    """One membership."""

    def __init__(self, topic: MemoryTopic, group: str) -> None:
        self.topic = topic
        self.group = group
        self.positions: dict[int, int] = {}
        self.paused: set[int] = set()
        self.begins_paused = True
        """False: what was on its way when the partitions were assigned arrives."""
        self._assigned: Callable[[frozenset[int]], None] | None = None
        self._revoked: Callable[[], Awaitable[None]] | None = None

    async def start(self, assigned: Callable[[frozenset[int]], None], revoked: Callable[[], Awaitable[None]]) -> None:
        self._check()
        self._assigned, self._revoked = assigned, revoked
        await self.topic.join(self)

    async def stop(self) -> None:
        self.positions.clear()
        await self.topic.leave(self)

    async def lose(self) -> None:
        if self._revoked is not None:
            await self._revoked()
        self.positions.clear()

    def gain(self, partitions: frozenset[int]) -> None:
        # Fetching begins before anybody can seek, from what is committed at that moment.
        self.positions = {partition: self.topic.committed.get((self.group, partition), 0) for partition in partitions}
        self.paused = set(partitions) if self.begins_paused else set()
        if self._assigned is not None:
            self._assigned(partitions)

    async def fetch(self, timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
        self._check()
        fetched = self._available()
        if not fetched:
            await self.topic.appended(timeout_s)
            fetched = self._available()
        for partition, records in fetched.items():
            self.positions[partition] = records[-1].offset + 1
        await asyncio.sleep(0)
        return fetched

    def seek(self, partition: int, offset: int) -> None:
        if partition not in self.positions:
            raise Unavailable(f"partition {partition} is not assigned")
        self.positions[partition] = offset

    def pause(self, partition: int) -> None:
        self.paused.add(partition)

    def resume(self, partition: int) -> None:
        self.paused.discard(partition)

    def last_end(self, partition: int) -> int | None:
        return self.topic.end(partition)

    async def committed(self, partition: int) -> int | None:
        self._check()
        return self.topic.committed.get((self.group, partition))

    async def noted(self, topic: str, partition: int) -> tuple[int, str] | None:
        self._check()
        return None

    async def beginning(self, partition: int) -> int:
        self._check()
        return self.topic.first[partition]

    async def end(self, partition: int) -> int:
        self._check()
        return self.topic.end(partition)

    async def at(self, partition: int, time_ms: int) -> int | None:
        self._check()
        return next((record.offset for record in self.topic.logs[partition] if record.time_ms >= time_ms), None)

    async def log(self, partition: int) -> int:
        self._check()
        return self.topic.generation * 1000 + partition + 1

    def report(self, partition: int, offset: int) -> None:
        if not self.topic.away and partition in self.positions:
            self.topic.committed[self.group, partition] = offset

    def _available(self) -> dict[int, list[Consumed]]:
        found: dict[int, list[Consumed]] = {}
        for partition, position in self.positions.items():
            if partition in self.paused:
                continue
            if position < self.topic.first[partition]:
                raise OutOfRange(frozenset({partition}))
            records = [record for record in self.topic.logs[partition] if record.offset >= position]
            if records:
                found[partition] = records
        return found

    def _check(self) -> None:
        if self.topic.away:
            raise Unavailable("the broker in memory is away")
