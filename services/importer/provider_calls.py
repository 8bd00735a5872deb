"""Calls of the services' Data Providers: batches, deadlines, retries; what they answer is checked before anybody sees
it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import grpc

from banditmesh.contracts.provider.v1 import provider_pb2, provider_pb2_grpc
from banditmesh.runtime.channels import Connection
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import FailedPrecondition, Unavailable, printable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.tls import ClientTls
from services.importer.content_check import content_problem
from services.importer.failure import shorten
from services.importer.metrics import ImporterMetrics

log = get_logger(__name__)

ATTEMPTS = 5
FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_OPTIONS = (("grpc.max_receive_message_length", MAX_ANSWER_BYTES),)
RETRIED = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)
_TOO_LARGE = re.compile(r"larger than|exceeds (the )?max|too large", re.IGNORECASE)
"""How gRPC's libraries for C, Go, Java and .NET say RESOURCE_EXHAUSTED of a message, rather than of a quota; Rust's
says OUT_OF_RANGE.
"""
_SIZE_CODES = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE})


class ProviderUnavailable(Unavailable):
    """The Data Provider did not answer in time, however often it was asked."""


class ProviderFailed(FailedPrecondition):
    """The Data Provider answered with an error that asking again does not change."""


def _said(error: grpc.aio.AioRpcError) -> str:
    """What a stranger's status says, on one line and no longer than that."""
    return f"{error.code().name}: {printable(shorten(error.details() or 'nothing more'))}"


class _TooLarge(Exception):
    """The answer does not fit into a message."""


@dataclass(frozen=True)
class RejectedContent:
    """A content that is ignored.

    Attributes:
        content_id: As the provider named it.
        reason: Short and countable.
    """

    content_id: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """What a provider said.

    Attributes:
        contents: The valid ones, each asked for.
        missing: Ids that it does not have.
        rejected: Contents that nobody asked for, that came twice, that were not valid or too large for a message.
    """

    contents: list[provider_pb2.Content]
    missing: list[str]
    rejected: list[RejectedContent]


class ProviderCalls:
    """Asks Data Providers. Close it with :meth:`close`."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        metrics: ImporterMetrics,
        clock: Clock,
        rng: Random,
        *,
        timeout_s: float,
        tls: ClientTls | None = None,
        dimensions: int | None = None,
    ) -> None:
        """``addresses``: gRPC target by service; services without a provider are not in it. ``rng`` spreads the
        retries. ``tls``: None for plaintext. ``dimensions``: of the mesh's vectors.
        """
        self._addresses = addresses
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._timeout_s = timeout_s
        self._tls = tls
        self._dimensions = dimensions
        self._connections: dict[str, Connection[provider_pb2_grpc.DataProviderServiceStub]] = {}

    def has_provider(self, service: str) -> bool:
        """Whether there is anybody to ask about a service's contents."""
        return service in self._addresses

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

    async def get_contents(self, service: str, content_ids: Sequence[str]) -> Answer:
        """Ask for at most ``MAX_CONTENT_IDS`` contents, each once; an answer that is too large for a message is asked
        for in halves, and a single content that is too large is rejected.

        Raises:
            ProviderUnavailable: UNAVAILABLE, DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED, :data:`ATTEMPTS` times.
            ProviderFailed: Any other status.
        """
        try:
            return self._check(service, content_ids, await self._ask(service, content_ids))
        except _TooLarge:
            if len(content_ids) == 1:
                return self._answer(service, [], [], [RejectedContent(content_ids[0], "too_large")])
        middle = len(content_ids) // 2
        first = await self.get_contents(service, content_ids[:middle])
        second = await self.get_contents(service, content_ids[middle:])
        return Answer(
            first.contents + second.contents, first.missing + second.missing, first.rejected + second.rejected
        )

    async def _ask(self, service: str, content_ids: Sequence[str]) -> list[provider_pb2.Content]:
        address = self._addresses[service]
        request = provider_pb2.GetContentsRequest(service=service, content_ids=content_ids)
        for attempt in range(1, ATTEMPTS + 1):
            began_s = self._clock.monotonic_s()
            try:
                response = await self._stub(address).GetContents(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                self._metrics.provider_calls.labels(service=service, code=error.code().name).inc()
                if error.code() in _SIZE_CODES and _TOO_LARGE.search(error.details() or ""):
                    raise _TooLarge from error
                if error.code() not in RETRIED:
                    raise ProviderFailed(
                        f"the Data Provider of {service} at {address} answered {_said(error)}",
                        hint="GetContents must answer with the contents that exist; see its own log",
                    ) from error
                often = "" if attempt == 1 else f" {attempt} times"
                away = ProviderUnavailable(
                    f"the Data Provider of {service} at {address} did not answer{often} ({_said(error)})",
                    hint="start it, or correct services.*.provider in mesh.yaml, and ask again",
                    retry_after_s=MOST_PAUSE_S,
                    dependency=f"provider of {service}",
                )
                outages.failed(f"calls of the provider of {service}", away)
                if attempt == ATTEMPTS:
                    raise away from error
                # Full jitter: importers that failed together do not come back together.
                await self._clock.sleep(self._rng.random() * min(FIRST_PAUSE_S * 2**attempt, MOST_PAUSE_S))
            else:
                outages.well(f"calls of the provider of {service}")
                self._metrics.provider_calls.labels(service=service, code="OK").inc()
                self._metrics.provider_seconds.labels(service=service).observe(self._clock.monotonic_s() - began_s)
                return list(response.contents)
        raise AssertionError("the loop returns or raises")

    def _check(self, service: str, content_ids: Sequence[str], contents: Sequence[provider_pb2.Content]) -> Answer:
        asked = set(content_ids)
        answered: set[str] = set()
        valid: list[provider_pb2.Content] = []
        rejected: list[RejectedContent] = []
        for content in contents:
            problem = content_problem(content, self._dimensions)
            if not problem and content.content_id not in asked:
                problem = "not_asked_for"
            elif not problem and content.content_id in answered:
                problem = "twice"
            answered.add(content.content_id)
            if problem:
                rejected.append(RejectedContent(content.content_id, problem))
            else:
                valid.append(content)
        missing = [content_id for content_id in content_ids if content_id not in answered]
        return self._answer(service, valid, missing, rejected)

    def _answer(
        self,
        service: str,
        valid: list[provider_pb2.Content],
        missing: list[str],
        rejected: list[RejectedContent],
    ) -> Answer:
        for problem, count in Counter(each.reason for each in rejected).items():
            self._metrics.rejected_contents.labels(service=service, reason=problem).inc(count)
            first = next(each.content_id for each in rejected if each.reason == problem)
            log.warning("contents of a data provider are ignored", of=service, reason=problem, count=count, first=first)
        return Answer(valid, missing, rejected)

    def _stub(self, address: str) -> provider_pb2_grpc.DataProviderServiceAsyncStub:
        found = self._connections.get(address)
        if found is None:
            found = Connection(address, provider_pb2_grpc.DataProviderServiceStub, self._tls, options=_OPTIONS)
            self._connections[address] = found
        return found.stub  # type: ignore[return-value]
