"""What a user would like by taste, out of all contents that the fit of `als` knows."""

from __future__ import annotations

from typing import ClassVar, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import als as policies
from banditmesh.runtime.retrieval_options import Taste
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.models import Models
from services.crs_engine.pipeline.feedback import feedback
from services.crs_engine.pipeline.retrievers.base import Asked, Proposed

_SPARE: Final = 50
"""Contents beyond the share that are looked up at least, in the place of those that have gone."""


class Als:
    """Proposes nothing to users of whom the fit knows nothing; what they touched already is not proposed again.

    Contents that have gone since the fit take no place either.
    """

    name: ClassVar[str] = "als"

    def __init__(self, models: Models, catalog: Catalog) -> None:
        self._models = models
        self._catalog = catalog
        self._places: WeakKeyDictionary[policies.Als, dict[str, NDArray[np.int64]]] = WeakKeyDictionary()

    def propose(self, asked: Asked) -> Proposed:
        """See `Retriever.propose`: the score is the preference, about 1 for what the user would like."""
        placement, options = asked.group.placement, asked.retrieval.options
        assert isinstance(options, Taste)
        policy = self._models.get(placement.name, options.model_name).policy
        assert isinstance(policy, policies.Als)
        theirs = feedback(asked.users.records)
        users = policy.users(theirs)[asked.who]
        known = np.flatnonzero(users.any(axis=1))
        places = self._services(policy, placement)
        there = np.flatnonzero((places >= 0) & asked.retrieval.services[places])
        share = min(asked.retrieval.share, len(there))
        # Looking up a few more is cheaper than all that the fit knows.
        looked = min(share + max(share, _SPARE), len(there))
        counts = np.zeros(len(asked), np.int64)
        scores = users[known].astype(np.float32) @ policy.factors[there].T
        scores[self._touched(policy, theirs.owners, theirs.contents, asked.who[known], there)] = -np.inf
        best = np.argpartition(-scores, looked - 1, axis=1)[:, :looked] if looked else scores[:, :0].astype(int)
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        found = np.take_along_axis(scores, best, 1)
        keys = policy.keys[there[best]]
        gone = self._catalog.are_gone(self._catalog.find(keys.ravel()), asked.now_s).reshape(keys.shape)
        fresh = np.isfinite(found) & ~gone
        fresh &= np.cumsum(fresh, axis=1) <= share
        counts[known] = fresh.sum(axis=1)
        rows = there[best[fresh]]
        offsets = np.zeros(len(asked) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        return Proposed(offsets, policy.keys[rows], places[rows], found[fresh])

    def _services(self, policy: policies.Als, placement: CompiledPlacement) -> NDArray[np.int64]:
        """``int64[n_contents]``: the position in ``placement.services`` of the service of each content that the fit
        knows; -1 where the placement does not show it. Worked out once for a fit."""
        known = self._places.setdefault(policy, {})
        if placement.name not in known:
            same = policy.services[:, None] == placement.shown_services
            known[placement.name] = np.where(same.any(axis=1), same.argmax(axis=1), -1)
        return known[placement.name]

    def _touched(
        self,
        policy: policies.Als,
        owners: NDArray[np.int64],
        contents: NDArray[np.uint64],
        who: NDArray[np.int64],
        there: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where in [n_who, n_there] stands what the user touched already. ``owners``, ``contents``: the feedback."""
        rows, users = policy.rows(contents), np.searchsorted(who, owners)
        users = np.minimum(users, len(who) - 1)
        at = np.minimum(np.searchsorted(there, rows), max(len(there) - 1, 0))
        if not len(who) or not len(there):
            return users[:0], at[:0]
        meant = (who[users] == owners) & (there[at] == rows)
        return users[meant], at[meant]
