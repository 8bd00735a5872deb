"""What is away now, said once for the whole process: a line when an outage begins, reminders further and further apart,
a line when it is over.

Many loops notice one outage: each partition of a stream, each model, each health check. So an outage belongs to the
dependency that an error names (``MeshError.dependency``: ``redis``, ``kafka``, ``store``, a Data Provider), not to the
loop that met it; an error that names none is an outage of the work that met it. It is over when each
:class:`Work` that failed by it has gone well again.

    self._work = outages.work("change stream")
    …
    except Unavailable as error:
        self._work.failed(error)
    else:
        self._work.well()

There is one registry a process, :data:`outages`, as there is one log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from banditmesh.runtime.errors import dependency_of, in_one_line

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

REMIND_FIRST_S: Final = 60.0
REMIND_MOST_S: Final = 3600.0
AGAIN_WITHIN_S: Final = 60.0
"""So soon after its end an outage is the same one, flapping: it is said again once it has lasted :data:`LASTED_S`."""
LASTED_S: Final = 5.0
LEFT_S: Final = 30.0
"""Work that has ended while it failed is waited for so much longer: other work may meet the same outage."""
FORGOTTEN_S: Final = 180.0
"""Work that failed so long ago, and was not tried since, is not waited for: nobody pauses so long."""


@dataclass
class _Outage:
    """Of one dependency, or of one work."""

    name: str
    since_s: float = 0.0
    ended_s: float = float("-inf")
    said: bool = False
    """Whether the log has a line of this outage."""
    remind_at_s: float = 0.0
    pause_s: float = REMIND_FIRST_S
    failures: int = 0
    failing: dict[str, float] = field(default_factory=dict)
    """Work that has failed and was not well since, with the time of its last failure."""


class Work:
    """Something that needs a dependency and goes on trying: a loop, a partition, a health check."""

    def __init__(self, outages: Outages, name: str, of: str | None) -> None:
        self._outages = outages
        self._of = of
        self.name = name

    def failed(self, error: BaseException, **fields: object) -> None:
        """An attempt failed. ``fields``: shown with the line, should this be the one that is written."""
        self._outages.failed(self.name, error, of=self._of, **fields)

    def well(self) -> None:
        """An attempt went well. Costs nothing while all is well."""
        self._outages.well(self.name)

    def ended(self) -> None:
        """Nobody tries any more."""
        self._outages.ended(self.name)


class Outages:
    """The outages of a process."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._outages: dict[str, _Outage] = {}
        self._meanwhile: dict[str, str] = {}
        self._failing = 0
        """How many outages there are now."""

    def work(self, name: str, of: str | None = None) -> Work:
        """Work of this name; ``of``: what is away when an error does not say it."""
        return Work(self, name, of)

    def meanwhile(self, dependency: str, what: str) -> None:
        """What this service does while a dependency is away, to be said when it is."""
        self._meanwhile[dependency] = what

    def failed(self, work: str, error: BaseException, *, of: str | None = None, **fields: Any) -> None:
        """See :meth:`Work.failed`."""
        name = dependency_of(error) or of or work
        now_s = self._now_s()
        outage = self._outages.setdefault(name, _Outage(name))
        if not outage.failing:
            self._begin(outage, now_s)
        outage.failing[work] = now_s
        outage.failures += 1
        quiet = not outage.said and outage.since_s - outage.ended_s < AGAIN_WITHIN_S
        if quiet and now_s - outage.since_s < LASTED_S:
            return
        if not outage.said:
            outage.said = True
            outage.remind_at_s, outage.pause_s = now_s + REMIND_FIRST_S, REMIND_FIRST_S
            meanwhile = self._meanwhile.get(name)
            log.warning(
                "dependency down",
                dependency=name,
                work=work,
                reason=in_one_line(error),
                **({"meanwhile": meanwhile} if meanwhile else {}),
                **fields,
            )
        elif now_s >= outage.remind_at_s:
            outage.pause_s = min(2 * outage.pause_s, REMIND_MOST_S)
            outage.remind_at_s = now_s + outage.pause_s
            log.warning(
                "dependency still down",
                dependency=name,
                work=sorted(outage.failing),
                reason=in_one_line(error),
                for_s=round(now_s - outage.since_s, 1),
                failures=outage.failures,
            )
        self._forget(now_s)

    def well(self, work: str) -> None:
        """See :meth:`Work.well`."""
        if not self._failing:
            return
        now_s = self._now_s()
        for outage in self._outages.values():
            if outage.failing.pop(work, None) is not None and not outage.failing:
                self._end(outage, now_s)
        self._forget(now_s)

    def ended(self, work: str) -> None:
        """See :meth:`Work.ended`."""
        for outage in self._outages.values():
            if work in outage.failing:
                outage.failing[work] = min(outage.failing[work], self._now_s() - FORGOTTEN_S + LEFT_S)

    def is_down(self, dependency: str) -> bool:
        """Whether there is an outage of it now."""
        outage = self._outages.get(dependency)
        return outage is not None and bool(outage.failing)

    def clear(self) -> None:
        """Know of nothing; for tests."""
        self._outages.clear()
        self._meanwhile.clear()
        self._failing = 0

    def _begin(self, outage: _Outage, now_s: float) -> None:
        self._failing += 1
        outage.since_s, outage.failures, outage.said = now_s, 0, False

    def _end(self, outage: _Outage, now_s: float) -> None:
        self._failing -= 1
        outage.ended_s = now_s
        if outage.said:
            log.info(
                "dependency up",
                dependency=outage.name,
                for_s=round(now_s - outage.since_s, 1),
                failures=outage.failures,
            )

    def _forget(self, now_s: float) -> None:
        """Wait no longer for work that nobody tries any more."""
        for outage in self._outages.values():
            gone = [work for work, failed_s in outage.failing.items() if now_s - failed_s > FORGOTTEN_S]
            for work in gone:
                del outage.failing[work]
            if gone and not outage.failing:
                self._end(outage, now_s)


outages: Final = Outages()
"""Those of this process."""
