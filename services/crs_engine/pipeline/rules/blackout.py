"""Certain contents are not shown at certain hours."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.rule_options import WEEKDAYS
from services.crs_engine.pipeline.batch import Mask, RuleConstraint
from services.crs_engine.pipeline.rules import users_place, which
from services.crs_engine.pipeline.rules.base import Barred, Draw

_DAY: Final = 24 * 60


class Blackout:
    """``rules.blackout``: by the user's own clock, or by that of ``time_zone``."""

    name: ClassVar[str] = "blackout"

    def __init__(self, params: rule_options.Blackout, placement: Placement) -> None:
        self._params = params
        self._begin, self._end = params.minutes
        self._weekdays = {WEEKDAYS.index(each) for each in params.weekdays}
        self._default = placement.features.time_zone

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        if self._params.time_zone is not None:
            (time,) = users_place.at(draw.view.now_s, [self._params.time_zone], "UTC")
            times = [time] * len(draw.slate.group)
        else:
            times = users_place.local_times(draw.slate, draw.view.now_s, self._default)
        dark = np.array([self._dark(time) for time in times])
        barred = dark[draw.pool.owners] & which.candidates(self._params.of, draw)
        return _Dark(barred, self._params.hours, draw, times) if barred.any() else None

    def _dark(self, time: datetime) -> bool:
        """Whether a moment is in the span; the hours after midnight belong to the day on which the span began."""
        minute, day = time.hour * 60 + time.minute, time.weekday()
        if self._begin < self._end:
            return day in self._weekdays and self._begin <= minute < self._end
        return (day in self._weekdays and minute >= self._begin) or (
            (day - 1) % 7 in self._weekdays and minute < self._end % _DAY
        )


class _Dark(Barred):
    def __init__(self, barred: Mask, hours: str, draw: Draw, times: list[datetime]) -> None:
        super().__init__(barred)
        self._hours = hours
        self._owners = draw.pool.owners
        self._times = times

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        return f"it is {self._times[self._owners[at]]:%a %H:%M} for the user, and blackout is {self._hours}"
