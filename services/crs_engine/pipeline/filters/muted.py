"""What this user has muted: the content itself, and for a while its whole service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import utc


class _Muted(ABC):
    """Takes out the candidates that have a key in common with a mute of their user that is fresh.

    Attributes:
        column: The key, as ``user_record.EVENT`` calls it.
        words: What was muted.
    """

    column: ClassVar[str]
    words: ClassVar[str]

    def __init__(self, for_s: float) -> None:
        """``for_s``: how long after the mute, in seconds."""
        self._for_s = for_s

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        records = view.users.records
        fresh = records.mute_events["time_s"] + self._for_s > view.now_s
        if not fresh.any():
            return None
        salted, ordered = self._salted(view)
        return view.matches(salted, ordered, records.mute_owners[fresh], records.mute_events[self.column][fresh])

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        records, key = view.users.records, self._keys(view)[at]
        own = (records.mute_owners == view.pool.owners[at]) & (records.mute_events[self.column] == key)
        return f"the user muted {self.words} at {utc(float(records.mute_events['time_s'][own].max()))}"

    @abstractmethod
    def _keys(self, view: View) -> NDArray[np.uint64]:
        """``uint64[n]``: the key of each candidate."""

    def _salted(self, view: View) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """``uint64[n]`` each: the keys salted with their user, and the same in ascending order."""
        salted = self._keys(view) ^ np.repeat(view.salts, view.pool.counts)
        return salted, np.sort(salted)


class MutedContent(_Muted):
    """For ``mute.content_for`` after the mute, in every placement."""

    name: ClassVar[str] = "muted_content"
    column = "content"
    words = "it"

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: for ``mute.content_for``."""
        return cls(placement.mute.content_for)

    def _keys(self, view: View) -> NDArray[np.uint64]:
        return view.pool.contents

    def _salted(self, view: View) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        return view.salted_contents, view.ordered_contents  # which other filters need too


class MutedService(_Muted):
    """For ``mute.service_for`` after the mute, in every placement."""

    name: ClassVar[str] = "muted_service"
    column = "service"
    words = "something of its service"

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: for ``mute.service_for``."""
        return cls(placement.mute.service_for)

    def _keys(self, view: View) -> NDArray[np.uint64]:
        return view.pool.services
