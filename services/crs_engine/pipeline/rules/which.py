"""Which contents a rule is about: ``of: {…}``, as a mask over the items of a draw."""

from __future__ import annotations

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.runtime.rule_options import Which
from services.crs_engine.pipeline.batch import Mask
from services.crs_engine.pipeline.rules.base import Draw


def which(of: Which | None, draw: Draw) -> Mask:
    """``bool[n_items]``: the items that fit every key that ``of`` gives; all of them where it is None."""
    items = draw.items
    found = np.ones(len(items.rows), np.bool_)
    if of is None:
        return found
    if of.service is not None:
        services = draw.view.placement.services
        found &= items.services == (services.index(of.service) if of.service in services else -1)
    if of.content is not None:
        service, content_id = of.content.split("/", 1)
        found &= items.contents == np.uint64(hashing.content_key(service, content_id))
    if of.attribute is not None:
        found &= draw.view.catalog.attributes[of.attribute].has(items.rows, of.values)
    return found


def candidates(of: Which | None, draw: Draw) -> Mask:
    """``bool[n]``: the same of the candidates alone."""
    return which(of, draw)[: len(draw.pool)]
