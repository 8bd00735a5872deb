"""Stage 4: what the model sees of the user, the moment and each candidate."""

from __future__ import annotations

from banditmesh.bandits.batch import Candidates
from services.crs_engine.catalog import Catalog
from services.crs_engine.pipeline.batch import Group, Pool, Users


def featurize(group: Group, users: Users, pool: Pool, catalog: Catalog, now_s: float) -> Candidates:
    """The candidates with their features. A content without a catalog row has none of its own but its logic."""
    placement = group.placement
    user_block = placement.users.block(
        users.profile_rows, users.states, [request.context for request in group.requests], now_s
    )
    content_block = catalog.features(placement.catalog_block, pool.rows)
    if len(pool) and pool.rows.min() < 0:
        content_block.values[pool.rows < 0] = 0.0
    if placement.logic_column is not None:
        content_block.ids[:, placement.logic_column] = placement.logic_ids[pool.sources]
        content_block.values[:, placement.logic_column] = placement.logic_values[pool.sources]
    context, own = placement.featurizer.rows(user_block, content_block, pool.offsets)
    return Candidates(pool.offsets, pool.contents, placement.logic_keys[pool.sources], pool.services, context, own)
