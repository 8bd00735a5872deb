"""What an app's backend imports: ask what to show, say what became of it.

::

    async with MeshClient(engine="dns:///engine:50052", tracker="dns:///tracker:50053") as mesh:
        selection = await mesh.select("talk-head-jp", user_id="u-42")
        match selection:
            case Selected():
                page.show(selection.title, selection.uri)
                await mesh.track_shown(selection)
            case Nothing():
                page.hide_slot(until=selection.until)
        ...
        await mesh.track_click(selection)      # on the same selection, or with the bytes of selection.token
        await mesh.track_target(selection, "purchase", weight=2.0)

Concurrent ``select()`` calls travel together (:mod:`banditmesh.coalescing`), so one client for the whole process is
right. Everything here may safely be sent twice, so what a server answers with UNAVAILABLE, or with RESOURCE_EXHAUSTED
and a delay, is tried again within the call's deadline, and what it does not answer at all is sent to another one
(:mod:`banditmesh.hedging`). Errors are those of :mod:`banditmesh.runtime.errors`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import grpc

from banditmesh.coalescing import Coalescer, CoalescingLimits
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2, crs_engine_pb2_grpc
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2, tracker_pb2_grpc
from banditmesh.hedging import Hedging
from banditmesh.runtime.channels import Connection
from banditmesh.runtime.errors import InvalidArgument, MeshError, ResourceExhausted, Unavailable, from_rpc_error
from banditmesh.runtime.tls import ClientTls
from banditmesh.selection import Nothing, Origin, Reason, Selected, of_event, of_recommendations, of_result

__all__ = [
    "ClientLimits",
    "ClientTls",
    "Event",
    "MeshClient",
    "Nothing",
    "Origin",
    "Reason",
    "Selected",
    "click",
    "dwell",
    "mute",
    "shown",
    "target",
]

MAX_REQUEST_BYTES = 32 * 1024
"""Of one select: requests that travel together must not make the call too large for all of them."""
FIRST_BACKOFF_S = 0.02
MOST_BACKOFF_S = 1.0

Shown = Selected | bytes
"""A selection, or its impression token where only that is at hand."""
Event = tracker_pb2.Event
Result = TypeVar("Result")


def shown(selection: Shown, *, at: datetime | None = None) -> Event:
    """The content became visible; ``at``: when, by the device's clock."""
    return _event(selection, at, tracker_pb2.Event(shown=tracker_pb2.Shown()))


def click(selection: Shown, *, at: datetime | None = None) -> Event:
    """The user opened it."""
    return _event(selection, at, tracker_pb2.Event(click=events_pb2.Click()))


def mute(selection: Shown, *, at: datetime | None = None) -> Event:
    """The user does not want to see this."""
    return _event(selection, at, tracker_pb2.Event(mute=events_pb2.Mute()))


def target(selection: Shown, name: str, *, weight: float = 1.0, at: datetime | None = None) -> Event:
    """The user did what the service hopes for; ``name`` as mesh.yaml's ``rewards.targets`` lists it, ``weight`` > 0."""
    return _event(selection, at, tracker_pb2.Event(target=events_pb2.TargetAction(name=name, weight=weight)))


def dwell(selection: Shown, seconds: float, *, part: int = 0, at: datetime | None = None) -> Event:
    """The user stayed with it for ``seconds`` more; ``part`` counts these events of one selection, from 0."""
    return _event(selection, at, tracker_pb2.Event(dwell=events_pb2.Dwell(seconds=seconds, part=part)))


@dataclass(frozen=True)
class ClientLimits:
    """How the client behaves; the defaults suit an app's backend."""

    deadline_s: float = 1.0
    """For each call that gives none, its retries included."""
    selects: CoalescingLimits = field(default_factory=CoalescingLimits)
    events: CoalescingLimits = field(default_factory=lambda: CoalescingLimits(max_batch=500))
    hedge_selects_after_s: float | None = 0.25
    """Without an answer for so long, a call goes to another engine as well; None: never."""
    hedge_events_after_s: float | None = 1.0
    """The same for trackers, which wait for Kafka's disks."""


class MeshClient:
    """Talks to the CRS Engine and the Event Tracker; make one for the whole process, inside its event loop.

    Every method takes ``deadline_s`` (seconds for the whole call, retries included) and raises a ``MeshError``:
    InvalidArgument and NotFound name the field; Unavailable and DeadlineExceeded say that the mesh did not answer in
    time, and the same call may work later.
    """

    def __init__(
        self,
        engine: str,
        tracker: str,
        *,
        limits: ClientLimits = ClientLimits(),
        tls: ClientTls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | Callable[[], str] | None = None,
    ) -> None:
        """Connect when the first call is made.

        Args:
            engine, tracker: gRPC targets, ``dns:///engine:50052`` and ``dns:///tracker:50053``, say.
            limits: Deadlines, and how requests are put together.
            tls: Files of certificates, which may be replaced while the client is in use.
            credentials: Instead of ``tls``, what grpc has for other cases.
            api_key: Of the ``access`` table of mesh.yaml; a function is asked before each call.
        """
        self._limits = limits
        self._api_key = api_key
        self._engine = Connection(engine, crs_engine_pb2_grpc.CrsEngineServiceStub, tls, credentials)
        self._tracker = Connection(tracker, tracker_pb2_grpc.EventTrackerServiceStub, tls, credentials)
        self._select_hedging = Hedging(limits.hedge_selects_after_s)
        self._event_hedging = Hedging(limits.hedge_events_after_s)
        self._selects: Coalescer[crs_engine_pb2.SelectContentRequest, Selected | Nothing] = Coalescer(
            self._send_selects, limits.selects
        )
        self._events: Coalescer[Event, None] = Coalescer(self._send_events, limits.events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections; calls under way raise FailedPrecondition."""
        await self._selects.close()
        await self._events.close()
        await self._engine.close()
        await self._tracker.close()

    async def select(
        self,
        placement: str,
        user_id: str,
        *,
        context: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> Selected | Nothing:
        """What to show to a user in a placement. ``context``: what the app knows about the moment, such as ``{"device":
        "tablet"}``."""
        request = crs_engine_pb2.SelectContentRequest(placement=placement, user_id=user_id, context=context)
        if request.ByteSize() > MAX_REQUEST_BYTES:
            raise InvalidArgument(
                f"the request has {request.ByteSize()} bytes; at most {MAX_REQUEST_BYTES} are allowed"
            )
        deadline = self._deadline(deadline_s)
        return await _retrying(lambda: self._selects.ask(request, deadline), deadline)

    async def recommend(
        self,
        placement: str,
        user_id: str,
        *,
        count: int = 10,
        context: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> Sequence[Selected] | Nothing:
        """Up to ``count`` (1 to 50) contents for a user, the best first, each with a token of its own."""
        request = crs_engine_pb2.RecommendContentsRequest(
            placement=placement, user_id=user_id, context=context, count=count
        )
        deadline = self._deadline(deadline_s)

        async def call() -> crs_engine_pb2.RecommendContentsResponse:
            timeout_s = deadline - asyncio.get_running_loop().time()
            return await _typed(
                self._engine.stub.RecommendContents(request, timeout=timeout_s, metadata=self._metadata())
            )

        return of_recommendations(await _retrying(lambda: self._select_hedging.first(call), deadline))

    async def track_shown(
        self, selection: Shown, *, at: datetime | None = None, deadline_s: float | None = None
    ) -> None:
        """Report that the content became visible; returns once it is stored. So do the other ``track_`` methods."""
        await self._track_one(shown(selection, at=at), deadline_s)

    async def track_click(
        self, selection: Shown, *, at: datetime | None = None, deadline_s: float | None = None
    ) -> None:
        """Report that the user opened it."""
        await self._track_one(click(selection, at=at), deadline_s)

    async def track_mute(
        self, selection: Shown, *, at: datetime | None = None, deadline_s: float | None = None
    ) -> None:
        """Report that the user does not want to see it."""
        await self._track_one(mute(selection, at=at), deadline_s)

    async def track_target(
        self,
        selection: Shown,
        name: str,
        *,
        weight: float = 1.0,
        at: datetime | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Report a target action; see :func:`target`."""
        await self._track_one(target(selection, name, weight=weight, at=at), deadline_s)

    async def track(self, events: Iterable[Event], *, deadline_s: float | None = None) -> list[MeshError | None]:
        """Report several events (:func:`shown`, :func:`click`, :func:`mute`, :func:`target`), in any number.

        Returns:
            For each event None once it is stored, else why it is not. Those that are Unavailable or ResourceExhausted
            may be sent again; the others never succeed.
        """
        deadline = self._deadline(deadline_s)
        pending = dict(enumerate(events))
        outcomes: list[MeshError | None] = [None] * len(pending)
        backoff = _Backoff(deadline)
        while pending:
            answers = await self._events.ask_all(pending.values(), deadline)
            outcomes_now = dict(zip(pending, answers, strict=True))
            for position, outcome in outcomes_now.items():
                outcomes[position] = outcome
                if not _may_pass(outcome):
                    del pending[position]
            away = [outcome for outcome in outcomes_now.values() if outcome is not None and _may_pass(outcome)]
            if away and not await backoff.wait_after(away[0]):
                break
        return outcomes

    async def _track_one(self, event: Event, deadline_s: float | None) -> None:
        (outcome,) = await self.track([event], deadline_s=deadline_s)
        if outcome is not None:
            raise outcome

    async def _send_selects(
        self, requests: Sequence[crs_engine_pb2.SelectContentRequest], timeout_s: float
    ) -> Sequence[Selected | Nothing | MeshError]:
        request = crs_engine_pb2.BatchSelectContentsRequest(requests=requests)
        deadline = self._deadline(timeout_s)

        async def call() -> crs_engine_pb2.BatchSelectContentsResponse:
            left_s = deadline - asyncio.get_running_loop().time()
            return await _typed(
                self._engine.stub.BatchSelectContents(request, timeout=left_s, metadata=self._metadata())
            )

        response = await self._select_hedging.first(call)
        return [of_result(result) for result in response.results]

    async def _send_events(self, events: Sequence[Event], timeout_s: float) -> Sequence[MeshError | None]:
        request = tracker_pb2.TrackEventsRequest(events=events)
        deadline = self._deadline(timeout_s)

        async def call() -> tracker_pb2.TrackEventsResponse:
            left_s = deadline - asyncio.get_running_loop().time()
            return await _typed(self._tracker.stub.TrackEvents(request, timeout=left_s, metadata=self._metadata()))

        response = await self._event_hedging.first(call)
        return [of_event(result) for result in response.results]

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self._api_key is None:
            return ()
        key = self._api_key if isinstance(self._api_key, str) else self._api_key()
        return (("authorization", f"Bearer {key}"),)

    def _deadline(self, deadline_s: float | None) -> float:
        """In the event loop's time."""
        return asyncio.get_running_loop().time() + (self._limits.deadline_s if deadline_s is None else deadline_s)


class _Backoff:
    """Pauses between tries: as long as the server asks for, at least 20 ms, doubling, with jitter; never past the
    deadline."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._pause_s = FIRST_BACKOFF_S

    async def wait_after(self, error: MeshError) -> bool:
        """True: try again. False, at once: there is no time left for it."""
        pause_s = max(error.retry_after_s or 0.0, self._pause_s * random.uniform(0.5, 1.0))
        self._pause_s = min(self._pause_s * 2, MOST_BACKOFF_S)
        if asyncio.get_running_loop().time() + pause_s >= self._deadline:
            return False
        await asyncio.sleep(pause_s)
        return True


async def _retrying(call: Callable[[], Awaitable[Result]], deadline: float) -> Result:
    backoff = _Backoff(deadline)
    while True:
        try:
            return await call()
        except (Unavailable, ResourceExhausted) as error:
            if not _may_pass(error) or not await backoff.wait_after(error):
                raise


def _may_pass(error: MeshError | None) -> bool:
    """Whether the same call may succeed a moment later: the server is away, or busy and says for how long."""
    return isinstance(error, Unavailable) or (isinstance(error, ResourceExhausted) and error.retry_after_s is not None)


async def _typed(call: Awaitable[Result]) -> Result:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


def _event(selection: Shown, at: datetime | None, event: Event) -> Event:
    event.impression_token = selection.token if isinstance(selection, Selected) else selection
    if at is not None:
        event.client_time.FromDatetime(at)
    return event
