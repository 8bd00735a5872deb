"""The shards that one replica learns. With thousands of placements it takes seconds to make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from banditmesh.runtime.mesh import Mesh
from services.learner.catalog import Catalog, ShardId
from services.learner.density_shard import DensityShard
from services.learner.experiment_shard import EXPERIMENT, ExperimentShard
from services.learner.shard import Shard
from services.learner.validation import Validation


@dataclass(frozen=True)
class Owned:
    """See the module. ``tallies``: by placement."""

    models: Mapping[ShardId, Shard]
    tallies: Mapping[str, ExperimentShard]
    densities: Sequence[DensityShard]

    @classmethod
    def of(cls, catalog: Catalog, mesh: Mesh, ordinal: int, replicas: int) -> Self:
        """Those of replica ``ordinal``, at their priors. Touches nothing that serves, and does no I/O: to be called on
        another thread."""
        batch, validation = mesh.learning.batch, mesh.learning.validation
        models = {
            shard_id: Shard(shard_id, spec, batch=batch)
            for shard_id, spec in catalog.models.items()
            if shard_id.owner(replicas) == ordinal
        }
        if validation.on:
            for shard_id, shard in models.items():
                shard.validation = Validation(validation, *mesh.placements[shard_id.placement].rewards.range())
        return cls(
            models,
            {
                placement: ExperimentShard(placement, batch=batch)
                for placement in mesh.placements
                if ShardId(placement, EXPERIMENT).owner(replicas) == ordinal
            },
            [
                DensityShard(shard_id, *density)
                for shard_id, density in catalog.densities.items()
                if shard_id.owner(replicas) == ordinal
            ],
        )
