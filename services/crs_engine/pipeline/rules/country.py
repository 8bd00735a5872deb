"""Contents that may be shown in certain countries only."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, RuleConstraint
from services.crs_engine.pipeline.rules import users_place, which
from services.crs_engine.pipeline.rules.base import Barred, Draw


class Country:
    """``rules.country``: by a list in ``mesh.yaml``, or by an attribute of the contents."""

    name: ClassVar[str] = "country"

    def __init__(self, params: rule_options.Country, placement: Placement) -> None:
        self._params = params

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        countries = [each.upper() for each in users_place.said(draw.slate, users_place.COUNTRY)]
        barred = self._by_list(draw, countries)
        if self._params.attribute is not None:
            barred |= self._by_attribute(self._params.attribute, draw, countries)
        return _Abroad(barred, countries, draw) if barred.any() else None

    def _by_list(self, draw: Draw, countries: list[str]) -> Mask:
        """``bool[n]``."""
        only, never = self._params.only, self._params.never
        if not only and not never:
            return np.zeros(len(draw.pool), np.bool_)
        barred = np.array(
            [(bool(only) and each not in only) or each in never if each else self._hides for each in countries],
            np.bool_,
        )
        return barred[draw.pool.owners] & which.candidates(self._params.of, draw)

    def _by_attribute(self, name: str, draw: Draw, countries: list[str]) -> Mask:
        """``bool[n]``."""
        column, rows = draw.view.catalog.attributes[name], draw.pool.rows
        somewhere, allowed = column.some(rows), np.zeros(len(rows), np.bool_)
        for country in set(countries):
            theirs = np.array([each == country for each in countries])[draw.pool.owners]
            here = column.has(rows, (country, country.lower())) if country else np.full(len(rows), not self._hides)
            allowed |= theirs & here
        return somewhere & ~allowed

    @property
    def _hides(self) -> bool:
        return self._params.unknown == "hide"


class _Abroad(Barred):
    def __init__(self, barred: Mask, countries: list[str], draw: Draw) -> None:
        super().__init__(barred)
        self._countries = countries
        self._owners = draw.pool.owners

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        country = self._countries[self._owners[at]]
        where = f"in {country}, where the user is" if country else "where the country of the user is not known"
        return f"it is not shown {where}"
