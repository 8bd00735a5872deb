"""Which models there are, what they are called, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from banditmesh.bandits import registry
from banditmesh.bandits.hashing import key64
from banditmesh.lengths import MAX_MODEL_NAME_BYTES, MAX_NAME_BYTES
from banditmesh.retrieval.density import DensityParams
from banditmesh.runtime.errors import InvalidArgument, NotFound
from banditmesh.runtime.limits import check_text
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.retrieval_options import Density


class ShardId(NamedTuple):
    """Which model of which placement."""

    placement: str
    model: str
    """``<policy>-<digest of its parameters>``."""

    def owner(self, replicas: int) -> int:
        """Ordinal of the replica that learns it: the same on every replica, and for ever."""
        return key64(f"{self.placement}/{self.model}") % replicas


@dataclass(frozen=True)
class ModelSpec:
    """What a shard's model is."""

    policy: str
    params: dict[str, Any]
    """All of them, defaults filled in."""
    features: dict[str, Any] = field(default_factory=dict)
    """What it sees of a row beside its fields, see ``Manifest.features``."""


class Catalog:
    """Every model of a mesh that learns: those of the variants, and popularity where it is a source or the fallback."""

    def __init__(self, mesh: Mesh) -> None:
        self.placements = frozenset(mesh.placements)
        self.models: Mapping[ShardId, ModelSpec] = {
            ShardId(placement, name): ModelSpec(
                model.policy,
                registry.policy_params(model.policy, model.params).model_dump(mode="json"),
                {"user": False, "cross": [list(pair) for pair in mesh.placements[placement].features.crosses]},
            )
            for (placement, name), model in mesh.models().items()
            if registry.POLICIES[model.policy].learns
        }

        self.densities: Mapping[ShardId, tuple[Density, DensityParams]] = {
            ShardId(placement, name): (density, density.params(mesh.vectors.dimensions))
            for (placement, name), density in mesh.densities().items()
            if mesh.vectors is not None
        }

    def find(self, placement: str, model: str) -> ShardId:
        """The model of that name, or the only one of the policy of that name.

        Raises:
            NotFound: There is no such placement or model; names those that there are.
            InvalidArgument: A name is empty or too long, or the placement has several models of that policy.
        """
        check_text("placement", placement, MAX_NAME_BYTES)
        check_text("model", model, MAX_MODEL_NAME_BYTES)
        if placement not in self.placements:
            raise NotFound("no such placement", field="placement", value=placement, hint=_known(self.placements))
        kinds = {shard_id: spec.policy for shard_id, spec in self.models.items()} | dict.fromkeys(
            self.densities, "density"
        )
        here = {shard_id: kind for shard_id, kind in kinds.items() if shard_id.placement == placement}
        if ShardId(placement, model) in here:
            return ShardId(placement, model)
        found = [shard_id for shard_id, kind in here.items() if kind == model]
        if not found:
            hint = _known({shard_id.model for shard_id in here})
            raise NotFound(f"{placement} has no model of that name that learns", field="model", value=model, hint=hint)
        if len(found) > 1:
            names = ", ".join(sorted(shard_id.model for shard_id in found))
            raise InvalidArgument("several models are meant", field="model", value=model, hint=f"say which: {names}")
        return found[0]


def _known(names: frozenset[str] | set[str]) -> str:
    return f"there are: {', '.join(sorted(names)) or 'none'}"
