"""Calls that nobody here ever saw: cut off by the transport because the line in front of the event loop was full, or
given up by their clients while they stood in it. The transport's own statistics (channelz) know how many came."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from grpc._cython import cygrpc  # what grpcio-channelz reads; without its messages and its service
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

HANDED_OVER = 16
"""Calls that have left the line and are not counted as taken yet, at most: one on its way to the event loop, and those
whose tasks have not begun."""


class UnservedCalls(Collector):
    """A metric of one server, worked out when it is asked for: the calls that came, less those that were taken out of
    the line."""

    def __init__(self, taken: Callable[[], int], idle: Callable[[], bool], waiting_at_most: int) -> None:
        """Make this right before the ``grpc.aio.server``, and call :meth:`watch` right after.

        Args:
            taken: How many calls were taken out of the line, ever.
            idle: Whether nothing is being worked on, so that nobody stands in line.
            waiting_at_most: How many may stand there otherwise; such calls are counted once it is known what became of
                them.
        """
        self._taken = taken
        self._idle = idle
        self._waiting_at_most = waiting_at_most
        self._others = _server_ids()
        self._server_id = 0
        self._counted = 0
        self._certain = 0
        self._at_last_look = 0

    def watch(self) -> None:
        """Find the server that was made."""
        self._server_id = max(_server_ids() - self._others, default=0)

    def not_taken(self) -> int:
        """Calls that came and were not taken out of the line: those that stand in it, and those that never will be."""
        if not self._server_id:
            return 0
        server: dict[str, Any] = json.loads(cygrpc.channelz_get_server(self._server_id))["server"]
        return int(server.get("data", {}).get("callsStarted", 0)) - self._taken()

    def certain(self) -> int:
        """Those that never will be, whoever stands in line at this moment; some 0.1 ms.

        What :meth:`collect` thinks does not count: nobody must be refused because somebody was on the way then.
        """
        if self._server_id:
            self._certain = max(self._certain, self.not_taken() - self._waiting_at_most - HANDED_OVER)
        return self._certain

    def _count(self) -> int:
        found = self.certain()
        if self._idle():
            # Nobody stands in line, but one may have come this very moment: so what was so at the last look, too.
            now = self.not_taken()
            found = max(found, min(now, self._at_last_look))
            self._at_last_look = now
        self._counted = max(self._counted, found)
        return self._counted

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See :class:`prometheus_client.registry.Collector`."""
        yield CounterMetricFamily(
            "banditmesh_grpc_unserved",
            "Calls that ended before this process could look at them: the line in front of it was full (their clients "
            "see CANCELLED), or their deadline passed while they stood in it",
            value=self._count(),
        )


def _server_ids() -> set[int]:
    found: set[int] = set()
    while True:
        page = json.loads(cygrpc.channelz_get_servers(max(found, default=-1) + 1))
        found |= {int(each["ref"]["serverId"]) for each in page.get("server", [])}
        if page.get("end", True) or not page.get("server"):
            return found
