"""Shards that read together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from services.learner.reader import Known
from services.learner.shard import Shard

NEAR_MS = 10_000
"""Shards whose broker times are no further apart read together."""


@dataclass(frozen=True)
class Cohort:
    """Shards that read together. ``behind``: they catch up with the others, and then join them."""

    shards: Sequence[Shard]
    behind: bool = False

    @property
    def watermark_ms(self) -> int:
        """Broker time that the rearmost has come to."""
        return min((shard.watermark_ms for shard in self.shards), default=0)

    def known(self) -> Known:
        """Where each stands, in the partitions that all of them know."""
        partitions = set.intersection(*(set(shard.offsets) for shard in self.shards))
        return {
            partition: [(shard.offsets[partition], shard.logs.get(partition, 0)) for shard in self.shards]
            for partition in sorted(partitions)
        }

    @cached_property
    def by_placement(self) -> Mapping[str, Sequence[Shard]]:
        """Those that learn from each placement's examples."""
        found: dict[str, list[Shard]] = defaultdict(list)
        for shard in self.shards:
            found[shard.id.placement].append(shard)
        return dict(found)


def cohorts(shards: Sequence[Shard]) -> list[Cohort]:
    """The shards that are at the front, and, if there are any, those that are behind."""
    newest_ms = max(shard.watermark_ms for shard in shards)
    near = [shard for shard in shards if newest_ms - shard.watermark_ms <= NEAR_MS]
    behind = [shard for shard in shards if newest_ms - shard.watermark_ms > NEAR_MS]
    return [Cohort(near), *([Cohort(behind, behind=True)] if behind else [])]
