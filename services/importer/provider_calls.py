"""Calls of the services' Data Providers: batches, deadlines, retries; what they answer is checked before anybody sees
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import grpc

from banditmesh.contracts.provider.v1 import provider_pb2, provider_pb2_grpc
from banditmesh.runtime.channels import open_channel
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import FailedPrecondition, Unavailable
from banditmesh.runtime.logging import get_logger
from services.importer.content_check import content_problem
from services.importer.metrics import ImporterMetrics

log = get_logger(__name__)

MAX_IDS = 500
ATTEMPTS = 5
FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
RETRIED = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)


class ProviderUnavailable(Unavailable):
    """The Data Provider did not answer in time, however often it was asked."""


class ProviderFailed(FailedPrecondition):
    """The Data Provider answered with an error that asking again does not change."""


@dataclass(frozen=True)
class Answer:
    """What a provider said to one call.

    Attributes:
        contents: The valid ones, each asked for.
        missing: Ids that it does not have.
        rejected: How many contents it returned that nobody asked for, that came twice or that were not valid.
    """

    contents: list[provider_pb2.Content]
    missing: list[str]
    rejected: int


class ProviderCalls:
    """Asks Data Providers. Close it with :meth:`close`."""

    def __init__(
        self, addresses: Mapping[str, str], metrics: ImporterMetrics, clock: Clock, rng: Random, *, timeout_s: float
    ) -> None:
        """``addresses``: gRPC target by service; services without a provider are not in it. ``rng`` spreads the
        retries.
        """
        self._addresses = addresses
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._timeout_s = timeout_s
        self._channels: dict[str, grpc.aio.Channel] = {}

    def has_provider(self, service: str) -> bool:
        """Whether there is anybody to ask about a service's contents."""
        return service in self._addresses

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def get_contents(self, service: str, content_ids: Sequence[str]) -> Answer:
        """Ask for at most :data:`MAX_IDS` contents, each once.

        Raises:
            ProviderUnavailable: UNAVAILABLE, DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED, :data:`ATTEMPTS` times.
            ProviderFailed: Any other status.
        """
        address = self._addresses[service]
        request = provider_pb2.GetContentsRequest(service=service, content_ids=content_ids)
        for attempt in range(1, ATTEMPTS + 1):
            began_s = self._clock.monotonic_s()
            try:
                response = await self._stub(address).GetContents(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                self._metrics.provider_calls.labels(service=service, code=error.code().name).inc()
                if error.code() not in RETRIED:
                    raise ProviderFailed(
                        f"the Data Provider of {service} at {address} answered {error.code().name}: {error.details()}",
                        hint="GetContents must answer with the contents that exist; see its own log",
                    ) from error
                log.warning(
                    "data provider did not answer",
                    provider=address,
                    of=service,
                    attempt=attempt,
                    code=error.code().name,
                )
                if attempt == ATTEMPTS:
                    raise ProviderUnavailable(
                        f"the Data Provider of {service} at {address} did not answer {ATTEMPTS} times "
                        f"({error.code().name}: {error.details()})",
                        hint="start it, or correct services.*.provider in mesh.yaml, and ask again",
                        retry_after_s=MOST_PAUSE_S,
                    ) from error
                # Full jitter: importers that failed together do not come back together.
                await self._clock.sleep(self._rng.random() * min(FIRST_PAUSE_S * 2**attempt, MOST_PAUSE_S))
            else:
                self._metrics.provider_calls.labels(service=service, code="OK").inc()
                self._metrics.provider_seconds.labels(service=service).observe(self._clock.monotonic_s() - began_s)
                return self._check(service, content_ids, response.contents)
        raise AssertionError("the loop returns or raises")

    def _check(self, service: str, content_ids: Sequence[str], contents: Sequence[provider_pb2.Content]) -> Answer:
        asked = set(content_ids)
        answered: set[str] = set()
        valid: list[provider_pb2.Content] = []
        rejected: dict[str, int] = {}
        for content in contents:
            problem = content_problem(content)
            if not problem and content.content_id not in asked:
                problem = "not_asked_for"
            elif not problem and content.content_id in answered:
                problem = "twice"
            answered.add(content.content_id)
            if problem:
                rejected[problem] = rejected.get(problem, 0) + 1
            else:
                valid.append(content)
        for problem, count in rejected.items():
            self._metrics.rejected_contents.labels(service=service, reason=problem).inc(count)
        if rejected:
            log.warning("data provider answered with contents that are ignored", of=service, **rejected)
        missing = [content_id for content_id in content_ids if content_id not in answered]
        return Answer(valid, missing, sum(rejected.values()))

    def _stub(self, address: str) -> provider_pb2_grpc.DataProviderServiceAsyncStub:
        channel = self._channels.get(address)
        if channel is None:
            options = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
            channel = self._channels[address] = open_channel(address, options=options)
        return provider_pb2_grpc.DataProviderServiceStub(channel)  # type: ignore[return-value]
