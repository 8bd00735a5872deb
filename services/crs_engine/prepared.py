"""What a mesh.yaml comes to before any client is made: with thousands of placements it takes seconds, and it is worked
out beside the calls that the engine's former self answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from banditmesh.bandits.policy import Policy
from banditmesh.runtime import rule_options
from banditmesh.runtime.mesh import Mesh
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import (
    CompiledPlacement,
    compile_placements,
    featurizers,
    retrieved_services,
)
from services.crs_engine.models import priors
from services.crs_engine.pipeline import filters, retrievers, rules
from services.crs_engine.pipeline.filters.base import Filter
from services.crs_engine.pipeline.rules.base import Rule
from services.crs_engine.pipeline.rules.effects import Rebuilt


@dataclass(frozen=True)
class Prepared:
    """See the module.

    Attributes:
        placements, filters, rules: By the placement's name.
        rebuilt: The same, see `rules.rebuilt`; of those placements whose decisions are sampled.
        catalog: With nothing in it.
        followed: Services whose contents are all wanted.
        sources: ``service/logic`` of every mapping that some placement shows.
        priors: See `models.priors`.
    """

    placements: dict[str, CompiledPlacement]
    filters: Mapping[str, tuple[Filter, ...]]
    rules: Mapping[str, Mapping[str, Rule]]
    rebuilt: Mapping[str, Rebuilt]
    catalog: Catalog
    followed: Sequence[str]
    sources: Sequence[str]
    priors: Mapping[tuple[str, str], Policy]


def prepare(mesh: Mesh) -> Prepared:
    """Work it out. Touches nothing that serves, and does no I/O: to be called on another thread."""
    placements = compile_placements(mesh)
    followed = retrieved_services(placements)
    mesh.densities()  # known from here on
    return Prepared(
        placements,
        {name: filters.enabled(placement) for name, placement in mesh.placements.items()},
        {name: rules.enabled(placement) for name, placement in mesh.placements.items()},
        {name: rules.rebuilt(placement) for name, placement in mesh.placements.items() if placement.decisions.sample},
        Catalog(
            mesh.engine.catalog_size,
            featurizers(placements),
            notes_new=any(retrievers.Newest.name in each.retrievers for each in placements.values()),
            follows=followed,
            most_bytes=mesh.engine.catalog_mib << 20,
            attributes={name for each in mesh.placements.values() for name in rule_options.attributes(each.rules)},
            counted_by=mesh.capped(),
            dimensions=mesh.vectors.dimensions if mesh.vectors else 0,
        ),
        followed,
        sorted({each.name for placement in placements.values() for each in placement.sources if each.mapped}),
        priors(mesh),
    )
