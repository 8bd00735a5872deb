"""Stage 4: what the model sees of the user, the moment and each candidate."""

from __future__ import annotations

from banditmesh.bandits.batch import Candidates
from services.crs_engine.catalog import Catalog
from services.crs_engine.pipeline.batch import Group, Pool, Users


def featurize(group: Group, users: Users, pool: Pool, catalog: Catalog, now_s: float) -> Candidates:
    """The candidates with their features. A content without a catalog row has none of its own but its logic."""
    plan = group.plan
    user_block = plan.users.block(users.profile_rows, users.states, [visit.context for visit in group.visits], now_s)
    content_block = catalog.features(plan.catalog_block, pool.rows)
    if len(pool) and pool.rows.min() < 0:
        content_block.values[pool.rows < 0] = 0.0
    if plan.logic_column is not None:
        content_block.ids[:, plan.logic_column] = plan.logic_ids[pool.sources]
        content_block.values[:, plan.logic_column] = plan.logic_values[pool.sources]
    context, own = plan.featurizer.rows(user_block, content_block, pool.offsets)
    return Candidates(pool.offsets, pool.contents, plan.logic_keys[pool.sources], pool.services, context, own)
