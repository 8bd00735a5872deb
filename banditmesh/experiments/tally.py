"""The tally of a placement's experiment: eras, the current one and some before. Sums alone; no clock and no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import InvalidTensors
from banditmesh.experiments.era import DURING, Era, Plan, Shown
from banditmesh.experiments.people import People

NAME: Final = "experiment"
"""What the store calls it beside a placement's models: ``models/<placement>/experiment/``. No policy is called so."""
ERAS: Final = 4
"""That are kept, the current one included."""


class Tally:
    """Examples go in; what stays is a set of tensors, the same to the byte for the same examples in the same order.

    Attributes:
        eras: the oldest first; empty before `plan` was called.
        unknown: impressions of variants that no era of their time has.
        unsettled: impressions that were decided between two eras.
    """

    def __init__(self) -> None:
        self.eras: list[Era] = []
        self.unknown = 0
        self.unsettled = 0

    def plan(self, plan: Plan, now_ms: int, settle_ms: int = 0) -> bool:
        """Begin another era if the plan is another one than the last era's; whether it was.

        Args:
            now_ms: when the change was seen. The first era has all decisions.
            settle_ms: so long before and after it some engines decide by the old plan and some by the new one. Such
                decisions belong to no era: counted as either, they would look like users missing from a variant.
        """
        if self.eras and self.eras[-1].plan == plan:
            return False
        if self.eras:
            self.eras[-1].ended_ms = now_ms - settle_ms
        self.eras.append(Era.empty(plan, now_ms + settle_ms if self.eras else 0))
        del self.eras[:-ERAS]
        return True

    def learn(self, shown: Shown) -> None:
        """Takes in impressions, each into the era in which it was decided."""
        if not len(shown):
            return
        began = np.array([era.began_ms for era in self.eras], np.int64)
        of = np.searchsorted(began, shown.decided_ms, side="right") - 1
        self.unknown += int((of < 0).sum())
        for at, era in enumerate(self.eras):
            rows = np.flatnonzero(of == at)
            if era.ended_ms is not None:
                settled = shown.decided_ms[rows] < era.ended_ms
                self.unsettled += int((~settled).sum())
                rows = rows[settled]
            if len(rows):
                self.unknown += era.add(shown, rows)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """A copy of everything."""
        said = {
            "unknown": self.unknown,
            "unsettled": self.unsettled,
            "eras": [
                {
                    "plan": asdict(era.plan),
                    "began_ms": era.began_ms,
                    "ended_ms": era.ended_ms,
                    "halvings": era.people.halvings,
                }
                for era in self.eras
            ],
        }
        found: dict[str, NDArray[Any]] = {"plans": np.frombuffer(json.dumps(said).encode(), np.uint8).copy()}
        for at, era in enumerate(self.eras):
            found.update(era.tensors(f"era{at}"))
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """The tally that `tensors` was called of. Raises InvalidTensors."""
        tally = cls()
        try:
            said = json.loads(tensors["plans"].tobytes())
            tally.unknown = int(said["unknown"])
            tally.unsettled = int(said.get("unsettled", 0))  # absent: written before eras had ends
            for at, each in enumerate(said["eras"]):
                said_plan = each["plan"]
                plan = Plan(
                    **{**said_plan, "targets": tuple(said_plan["targets"]), "compared": tuple(said_plan["compared"])}
                )
                numbers = tensors[f"era{at}.days"]
                # Absent: written when the days before and after a start were one series.
                periods = tensors.get(f"era{at}.day_periods", np.full(len(numbers), DURING))
                days = zip(numbers.tolist(), periods.tolist(), strict=True)
                people = People(
                    tensors[f"era{at}.people"].copy(), tensors[f"era{at}.people_variants"].copy(), each["halvings"]
                )
                sums, ended_ms = tensors[f"era{at}.sums"].copy(), each.get("ended_ms")
                era = Era(plan, int(each["began_ms"]), sums, {}, people, None if ended_ms is None else int(ended_ms))
                if era.sums.shape[1] != len(plan.weights) or era.sums.shape[3] != len(plan.counts):
                    raise InvalidTensors("has another shape than its plan", field=f"era{at}.sums", value=era.sums.shape)
                era.days = {day: sums.copy() for day, sums in zip(days, tensors[f"era{at}.day_sums"], strict=True)}
                tally.eras.append(era)
        except InvalidTensors:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidTensors(f"is not a tally: {error!r}", field="plans", value=None) from error
        return tally
