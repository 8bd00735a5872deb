"""Which versions of a model stay in the store.

The newest genuine versions stay; those that a rollback published repeat one and do not count, or a night of rollbacks
would push out every version that one may want to go back to. The current version stays, with what it repeats and what
it was rolled back from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from banditmesh.runtime.snapshots import BadSnapshot, Snapshots
from services.learner.catalog import ShardId


def superfluous(repeats: Mapping[int, int], keep: int) -> list[int]:
    """Return the versions to delete, the oldest first.

    Args:
        repeats: For each version that there is the one that it repeats; 0 for a genuine one.
        keep: How many genuine versions stay.
    """
    versions = sorted(repeats)
    genuine = [version for version in versions if not repeats[version]]
    stay = {*genuine[-keep:], *versions[-1:]}
    rollbacks = [version for version in versions if repeats[version]]
    if rollbacks:
        newest = rollbacks[-1]
        stay |= {repeats[newest], newest, *[version for version in versions if version < newest][-1:]}
    return [version for version in versions if version not in stay]


class Retention:
    """Deletes what need not stay. What each version repeats is read once and remembered."""

    def __init__(self, snapshots: Snapshots, *, keep: int) -> None:
        self._snapshots = snapshots
        self._keep = keep
        self._repeats: dict[tuple[ShardId, int], int] = {}

    async def apply(self, shard: ShardId) -> None:
        """Delete the superfluous versions of a model. Raises what the store raises."""
        versions = await self._snapshots.versions(*shard)
        if len(versions) <= self._keep:
            return
        for version in superfluous({each: await self._repeated(shard, each) for each in versions}, self._keep):
            await self._snapshots.remove(*shard, version)
        self._forget(shard, versions)

    async def _repeated(self, shard: ShardId, version: int) -> int:
        found = self._repeats.get((shard, version))
        if found is None:
            try:
                found = (await self._snapshots.manifest(*shard, version)).rolled_back_to
            except BadSnapshot:  # broken versions count as what they were most likely
                found = 0
            self._repeats[shard, version] = found
        return found

    def _forget(self, shard: ShardId, versions: Sequence[int]) -> None:
        there = set(versions)
        for each in [key for key in self._repeats if key[0] == shard and key[1] not in there]:
            del self._repeats[each]
