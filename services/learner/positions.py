"""How far a shard has read where its model did not change: kept beside the snapshots, so that a model without traffic
does not read the whole topic again after each restart.

``models/<placement>/<model>/position.json``: the version whose model it belongs to (0: none is published yet), and the
position. It is overwritten by whoever learns the shard. An older one, or a zombie's, does no harm: between the
manifest's offsets and any position that names the same version there is nothing that the model has not got.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from banditmesh.runtime.errors import NotFound
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.store import Store
from services.learner.catalog import ShardId

log = get_logger(__name__)


class HasPosition(Protocol):
    """A manifest, or a :class:`Position`."""

    @property
    def offsets(self) -> Mapping[int, int]:
        """See :class:`Position`."""

    @property
    def logs(self) -> Mapping[int, int]:
        """See :class:`Position`."""

    @property
    def sources(self) -> Mapping[int, int]:
        """See :class:`Position`."""

    @property
    def source_logs(self) -> Mapping[int, int]:
        """See :class:`Position`."""

    @property
    def watermark_ms(self) -> int:
        """See :class:`Position`."""


@dataclass(frozen=True)
class Position:
    """Where a shard stands.

    Attributes:
        offsets: Partition of ``examples`` → the offset to go on with.
        logs: Partition of ``examples`` → which log (topic and partition) that offset counts; 0 or absent: not known.
        sources: Partition of ``impressions`` → the offset of the last impression applied.
        source_logs: Partition of ``impressions`` → which log that offset counts.
        watermark_ms: Broker time before which every example is contained.
        version: The snapshot that it goes on from; 0: none.
    """

    offsets: dict[int, int]
    logs: dict[int, int] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    source_logs: dict[int, int] = field(default_factory=dict)
    watermark_ms: int = 0
    version: int = 0


_POSITION = TypeAdapter(Position)


class Positions:
    """Reads and writes positions. Methods raise the store's errors."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, shard_id: ShardId, version: int) -> Position | None:
        """The position that goes on from this version; None when there is none, or it cannot be read."""
        try:
            position = _POSITION.validate_json((await self._store.get(_key(shard_id))).body)
        except NotFound:
            return None
        except ValidationError as error:
            log.error("position cannot be read; going on from the snapshot", shard=shard_id, reason=str(error))
            return None
        return position if position.version == version else None

    async def put(self, shard_id: ShardId, position: Position) -> None:
        """Overwrite the position."""
        await self._store.put(_key(shard_id), _POSITION.dump_json(position))


def _key(shard_id: ShardId) -> str:
    return f"models/{shard_id.placement}/{shard_id.model}/position.json"
