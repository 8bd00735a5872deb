"""Stage 4: what the model sees of the user, the moment and each candidate."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing
from banditmesh.bandits.batch import Candidates, SparseRows
from banditmesh.bandits.blocks import FieldBlock
from services.crs_engine.buckets import bucket_ids, buckets
from services.crs_engine.catalog import Catalog
from services.crs_engine.pipeline.batch import Group, Pool, Round, Users
from services.crs_engine.pipeline.fatigue import FATIGUE
from services.crs_engine.pipeline.feedback import feedback

SCORE: Final = np.uint32(hashing.numeric_id("score"))


def featurize(group: Group, users: Users, pool: Pool, catalog: Catalog, now_s: float) -> Candidates:
    """The candidates with their features. All of them are in the catalog: the filters have seen to that."""
    placement = group.placement
    contexts = [request.context for request in group.requests]
    user_block = placement.users.block(users.profile_rows, users.records, contexts, now_s)
    content_block = catalog.features(placement.catalog_block, pool.rows)
    columns = placement.content_columns
    if "logic" in columns:
        content_block.ids[:, columns["logic"]] = placement.logic_ids[pool.sources]
        content_block.values[:, columns["logic"]] = placement.logic_values[pool.sources]
    for name, shown in FATIGUE.items():
        if name in columns:
            content_block.ids[:, columns[name]] = bucket_ids(name)[buckets(shown(users, pool, now_s))]
            content_block.values[:, columns[name]] = 1.0
    if pool.said is not None:
        for name, said in zip(("score", "rank"), pool.said.T, strict=True):
            if name in columns:
                _fill_said(content_block, columns[name], name, said)
    context, own = placement.featurizer.rows(user_block, content_block, pool.offsets)
    did = feedback(users.records) if placement.uses_feedback else None
    logics = placement.logic_keys[pool.sources]
    return Candidates(pool.offsets, pool.contents, logics, pool.services, context, own, did)


def _fill_said(block: FieldBlock, column: int, name: str, said: NDArray[np.float32]) -> None:
    """What the sources say of the candidates (float32[n]) as a column: the score as a number, the rank in buckets."""
    if name == "score":
        # A score of 0, also one that a mapping file does not have, is no feature.
        block.ids[:, column] = np.where(said != 0, SCORE, 0)
        block.values[:, column] = said
    else:
        block.ids[:, column] = bucket_ids(name)[buckets(said.astype(np.int64))]
        block.values[:, column] = 1.0


def of_shown(group: Group, users: Users, drawn: Round, catalog: Catalog, now_s: float) -> SparseRows:
    """The features of what was chosen in a round, one row for each entry of ``Round.shown``: for the tokens."""
    owners, _, at = drawn.shown
    candidates = drawn.candidates
    if drawn.featured:
        return candidates.context.take(owners).beside(candidates.features.take(at))
    # Cached candidates have none, and a fallback's are many, and score without features: only what is shown gets them.
    # A user's chosen candidates stand together, in the order of their positions.
    offsets = np.zeros(len(group) + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=len(group)), out=offsets[1:])
    pool = drawn.pool
    said = None if pool.said is None else pool.said[at]
    shown = Pool(offsets, pool.contents[at], pool.services[at], pool.sources[at], pool.rows[at], said)
    candidates = featurize(group, users, shown, catalog, now_s)
    rows: NDArray[np.int64] = np.arange(len(at))
    return candidates.context.take(owners).beside(candidates.features.take(rows))
