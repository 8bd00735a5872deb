"""How many selections each variant had, and how many of them stayed empty: what engines count, and the learner reads.

An empty slot makes no impression, so topic ``examples`` knows nothing of it. Each engine process writes its own object,
``experiments/selections/<process>.json``, with all that it has counted since it began, every half a minute; nobody else
writes it, so nothing is counted twice. Users are hashed into buckets, as the learner does with impressions. A process
that is killed loses what it has counted since it wrote last: of each variant alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from banditmesh.bandits.hashing import mix64
from banditmesh.runtime.errors import MeshError, NotFound
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.store import Store

log = get_logger(__name__)

BUCKETS: Final = 256
FORGOTTEN_S: Final = 100 * 86400.0
"""After this long without a word from its engine an object is deleted."""
_PREFIX: Final = "experiments/selections/"
_SALT: Final = np.uint64(0xD6E8FEB86659FD93)
Counts = NDArray[np.float64]
"""float64[2, n_variants, 256]: selections, and those that stayed empty."""


class _Plan(BaseModel):
    """Of one plan, named by its digest: the variants, and 2 · n_variants · 256 counts."""

    model_config = ConfigDict(extra="ignore")

    variants: list[str]
    counts: list[int]


class _Written(BaseModel):
    """One engine's object: by placement, by plan."""

    model_config = ConfigDict(extra="ignore")

    at_s: float
    placements: dict[str, dict[str, _Plan]]


def buckets_of(users: NDArray[np.uint64]) -> NDArray[np.int64]:
    """``int64[n_users]``: the bucket of each hashed user."""
    return (mix64(users ^ _SALT) % np.uint64(BUCKETS)).astype(np.int64)


async def write(
    store: Store, process: str, at_s: float, counted: Mapping[str, Mapping[str, tuple[tuple[str, ...], Counts]]]
) -> None:
    """Overwrite the object of this process. Raises the store's errors."""
    placements = {
        placement: {
            name: _Plan(variants=list(variants), counts=counts.astype(np.int64).ravel().tolist())
            for name, (variants, counts) in plans.items()
        }
        for placement, plans in counted.items()
    }
    await store.put(f"{_PREFIX}{process}.json", _Written(at_s=at_s, placements=placements).model_dump_json().encode())


async def read(store: Store, now_s: float) -> dict[tuple[str, str], dict[str, Counts]]:
    """By placement and plan, by variant: float64[2, 256], the sum over all engines. Raises the store's errors."""
    found: dict[tuple[str, str], dict[str, Counts]] = {}
    async for key in store.list(_PREFIX):
        try:
            written = _Written.model_validate_json((await store.get(key)).body)
        except NotFound:
            continue
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            log.warning("counts of selections cannot be read", key=key, reason=reason)
            continue
        if now_s - written.at_s > FORGOTTEN_S:
            try:
                await store.delete(key)
            except MeshError as error:  # it counts no more, there or not; who cleans up snapshots says what is refused
                log.debug("old counts of selections not deleted", key=key, reason=str(error))
            continue
        for placement, plans in written.placements.items():
            for name, plan in plans.items():
                counts = np.array(plan.counts, np.float64)
                if counts.size != 2 * len(plan.variants) * BUCKETS:
                    continue
                by_variant = found.setdefault((placement, name), {})
                for at, variant in enumerate(plan.variants):
                    of = counts.reshape(2, -1, BUCKETS)[:, at]
                    by_variant[variant] = by_variant.get(variant, np.zeros((2, BUCKETS))) + of
    return found
