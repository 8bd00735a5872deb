"""No more than so many contents of one value of an attribute on a list."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from services.crs_engine.attribute_columns import label_key
from services.crs_engine.pipeline.batch import RuleConstraint
from services.crs_engine.pipeline.rules.base import Draw
from services.crs_engine.pipeline.rules.tally import Cap, dense


class CapPerAttribute:
    """``rules.cap_per_attribute``: ``most`` contents of each value. Of a content with several values each counts."""

    name: ClassVar[str] = "cap_per_attribute"

    def __init__(self, params: rule_options.CapPerAttribute, placement: Placement) -> None:
        self._params = params

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        return None if draw.slate.group.count <= self._params.most else _AttributeCap(self._params, draw)


class _AttributeCap(Cap):
    def __init__(self, params: rule_options.CapPerAttribute, draw: Draw) -> None:
        self._params = params
        self._column = draw.view.catalog.attributes[params.attribute]
        self._rows = draw.pool.rows
        codes, self._keys = dense(self._column.keys(draw.items.rows))
        super().__init__(draw, codes, max(len(self._keys), 1), params.most)

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        code, there = self.full(at, before)
        name, key = self._params.attribute, int(self._keys[code])
        value = next(each for each in self._column.values(int(self._rows[at])) if label_key(name, each) == key)
        return f"the list has {there} of {name}={value} before it, and cap_per_attribute allows {self._params.most}"
