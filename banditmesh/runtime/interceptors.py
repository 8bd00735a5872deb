"""What happens around every gRPC method: request id, metrics, default deadline, malformed bodies, errors → status with
details.

One interceptor instead of five: grpc.aio awaits each one on every call, which on a small handler costs more than what
they do. This one wraps the handler of a method when it is first called and hands out the wrapped one from then on.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import grpc
from prometheus_client import CollectorRegistry

from banditmesh.runtime.access import Access, is_admin
from banditmesh.runtime.admission import Admission, Door, Overflow, Refusal
from banditmesh.runtime.errors import (
    DeadlineExceeded,
    Internal,
    MeshError,
    Unavailable,
    Unimplemented,
    to_status,
)
from banditmesh.runtime.invocation import Context, Handler, Invoke, invocation, parser, within
from banditmesh.runtime.logging import get_logger, request_id
from banditmesh.runtime.metrics import GrpcMetrics

log = get_logger(__name__)

REQUEST_ID = "x-request-id"
STATUS_DETAILS = "grpc-status-details-bin"
LONGEST_REQUEST_ID = 128
OUR_FAULT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNKNOWN})
TOO_LATE = Refusal.of(DeadlineExceeded("the deadline had passed before the call's turn came; nothing was done"))
_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class CallRules:
    """Deadlines of calls whose client sent none, and what ends when the server drains. Methods go by full name,
    ``/package.Service/Method``.
    """

    default_deadline_s: float | None = 10.0
    """For methods with a unary response."""
    deadlines_s: Mapping[str, float | None] = field(default_factory=dict)
    until_drain: frozenset[str] = frozenset()
    max_concurrent_rpcs: int = 1024
    """Of unary responses, and as many again that stream; one more is refused."""
    always: frozenset[str] = frozenset()
    """Never refused for load: health, by which Kubernetes tells a busy server from a dead one."""

    def deadline_s(self, method: str, *, streams: bool) -> float | None:
        """The default deadline of a method; streams have none unless one is given by name."""
        return self.deadlines_s.get(method, None if streams else self.default_deadline_s)


class _Wrapped(NamedTuple):
    """A method's handler, what it counts against, and what answers when that is full."""

    handler: Handler
    admission: Admission | None
    refusal: Handler | None
    overflow: Handler | None


class InFlight:
    """Counts calls, and says when there are none."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def began(self) -> None:
        """One more."""
        self._count += 1
        self._none.clear()

    def ended(self) -> None:
        """One less."""
        self._count -= 1
        if not self._count:
            self._none.set()

    async def wait_for_none(self) -> None:
        """Return when all have ended."""
        await self._none.wait()


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc comes without types
    """The one interceptor of a server."""

    def __init__(
        self,
        metrics: GrpcMetrics,
        rules: CallRules | None = None,
        access: Access | None = None,
    ) -> None:
        self._doors: Mapping[str, Door] = {}
        """Of unary methods, by full name."""
        self._metrics = metrics
        self._access = access if access is not None else Access(CollectorRegistry())
        self._unknown = metrics.method("unknown")
        self._rules = rules if rules is not None else CallRules()
        self._wrapped: dict[str, _Wrapped] = {}
        self._unary = Admission(self._rules.max_concurrent_rpcs)
        self._streams = Admission(self._rules.max_concurrent_rpcs)
        self.accepted = 0
        """Calls that the transport has handed over, ever."""
        self._watches: dict[asyncio.Task[Any], str] = {}
        """Calls of ``until_drain`` methods, and their methods."""
        self._ending: set[asyncio.Task[Any]] = set()
        """Those that were told to end."""
        self._find: Callable[[str], Handler | None] = lambda _method: None
        """Who answers now; what it does not find, the registered handlers answer."""
        self._working = InFlight()
        self._overflow: Overflow | None = None

    def watch_overflow(self, cut_off: Callable[[], int]) -> None:
        """Tell callers to wait while the transport cuts calls off; ``cut_off``: how many it has, ever."""
        self._overflow = Overflow(cut_off, self._unary.delay)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        self.accepted += 1
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = self._find(method) or await continuation(handler_call_details)
            if handler is None:  # grpc answers UNIMPLEMENTED; the name is the client's, so it must not become a label
                self._unknown.finished(grpc.StatusCode.UNIMPLEMENTED, 0.0)
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        if wrapped.admission is not None:
            if wrapped.admission.full:
                return wrapped.refusal
            if self._overflow is not None and self._overflow.refuses():
                return wrapped.overflow
        return wrapped.handler

    @property
    def overflows(self) -> bool:
        """Whether the transport cuts calls off, as far as it was last seen."""
        return self._overflow is not None and self._overflow.lasts

    @property
    def idle(self) -> bool:
        """Whether no call is being worked on."""
        return not self._unary.in_flight and not self._streams.in_flight

    def drain(self) -> None:
        """End the calls of ``until_drain`` methods with UNAVAILABLE: their clients go on watching elsewhere."""
        self._end_watches(lambda _method: True)

    def replace(self, find: Callable[[str], Handler | None], doors: Mapping[str, Door] | None = None) -> InFlight:
        """Let what this finds by a method's full name answer from now on, behind these doors.

        Returns the calls that the handlers before still answer. Watches of theirs end with UNAVAILABLE.
        """
        before, self._working = self._working, InFlight()
        self._find = find
        self._doors = doors if doors is not None else {}
        self._wrapped.clear()
        self._end_watches(lambda method: find(method) is not None)
        return before

    def _end_watches(self, wanted: Callable[[str], bool]) -> None:
        for task, method in self._watches.items():
            if wanted(method):
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
                task.cancel()

    def _wrap(self, method: str, handler: Handler) -> _Wrapped:
        streams = bool(handler.request_streaming or handler.response_streaming)
        admission = self._streams if streams else self._unary
        if method in self._rules.always:
            return _Wrapped(self._guarded(method, handler, streams, None), None, None, None)
        return _Wrapped(
            self._guarded(method, handler, streams, admission),
            admission,
            self._refusing(method, "concurrency", admission.refusal),
            None if self._overflow is None else self._refusing(method, "overflow", self._overflow.refusal),
        )

    def _refusing(self, method: str, reason: str, refusal: Callable[[], Refusal]) -> Handler:
        """Answers one call too many. As a handler of a stream it does not wait for the request, let alone read it."""
        metrics = self._metrics.method(method)

        async def refuse(_requests: Any, context: Context) -> None:
            metrics.refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
            await _refuse(context, refusal())

        return grpc.stream_unary_rpc_method_handler(refuse, None, None)

    def _behind(self, door: Door, method: str, guarded: Invoke) -> Handler:
        """The method behind its door. As a handler of a stream it receives the request itself, once that has come in:
        a call that is refused costs half of one that is received, read, and refused then."""
        metrics = self._metrics.method(method)
        working = self._working

        async def ask(_requests: Any, context: Context) -> Any:
            remaining_s = context.time_remaining()
            if remaining_s is not None and remaining_s <= 0:
                metrics.refused(grpc.StatusCode.DEADLINE_EXCEEDED, "deadline")
                await _refuse(context, TOO_LATE)
            if (refusal := door(remaining_s)) is not None:
                metrics.refused(refusal.code, "queue")
                await _refuse(context, refusal)
            working.began()  # who takes this method over waits for the request, too
            try:
                body: Any = await context.read()
                if body is grpc.aio.EOF:
                    body = b""
                return await guarded(body, context)
            finally:
                working.ended()

        return grpc.stream_unary_rpc_method_handler(ask, None, None)

    def _guarded(self, method: str, handler: Handler, streams: bool, admission: Admission | None) -> Handler:
        parse = self._looking(method, parser(method, handler))
        deadline_s = self._rules.deadline_s(method, streams=streams)
        guarded = self._guard(method, invocation(handler, parse), deadline_s, admission)
        # Bodies of single requests are parsed inside the guard; only there can a failure become an INVALID_ARGUMENT.
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(guarded, parse, handler.response_serializer)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(guarded, parse, None)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(guarded, None, handler.response_serializer)
        if (door := self._doors.get(method)) is not None:
            return self._behind(door, method, guarded)
        return grpc.unary_unary_rpc_method_handler(guarded, None, None)

    def _looking(self, method: str, parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """Reads a request, and refuses what its caller may not ask for."""

        audited = is_admin(method)

        def read(body: bytes) -> Any:
            request = parse(body)
            if audited or not self._access.is_open:
                self._access.look_at(method, request)
            return request

        return read

    def _guard(
        self, method: str, invoke: Invoke, default_deadline_s: float | None, admission: Admission | None
    ) -> Invoke:
        metrics = self._metrics.method(method)
        watch = method in self._rules.until_drain
        audited = is_admin(method)
        working = self._working

        async def guarded(request: Any, context: Context) -> Any:
            began_s = time.perf_counter()
            metrics.in_flight.inc()
            working.began()
            if admission is not None:
                admission.in_flight += 1
            call_id = _call_id(context)
            request_id.set(call_id)  # the call has a task, and so a context, of its own
            trailing = ((REQUEST_ID, call_id),)
            context.set_trailing_metadata(trailing)
            code = grpc.StatusCode.OK
            if watch and (task := asyncio.current_task()) is not None:
                self._watches[task] = method
                task.add_done_callback(self._watches.pop)
            try:
                remaining_s = context.time_remaining()
                if remaining_s is not None and remaining_s <= 0:
                    metrics.late.inc()
                    raise DeadlineExceeded("the deadline had passed before the call's turn came; nothing was done")
                if not self._access.is_open:
                    self._access.admit(method, context)
                if default_deadline_s is None or remaining_s is not None:
                    response = await invoke(request, context)
                else:
                    response = await within(default_deadline_s, invoke(request, context))
                _return_id(context, trailing)
                if status := context.code():
                    code = _status_code(status)
                return response
            except grpc.aio.AbortError:  # the method has answered by itself
                code = _status_code(context.code())
                raise
            except asyncio.CancelledError as error:
                if asyncio.current_task() in self._ending and not context.cancelled():
                    refusal: MeshError = Unavailable("the server is changing; watch again", retry_after_s=0)
                elif (task := asyncio.current_task()) is None or task.cancelling():
                    # The client has gone, its deadline has passed, or the server's grace is over.
                    late = context.time_remaining() == 0
                    code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
                    raise
                else:  # Nobody cancelled the call: something that it waited for was. grpc.aio would never answer.
                    log.error("call awaited something that was cancelled", method=method, exc_info=error)
                    refusal = _internal(call_id)
                code = refusal.code
            except Exception as error:  # the edge: whatever is left becomes a status
                refusal = _known(error, method, call_id)
                code = refusal.code
            finally:  # before the answer leaves, so that who has the answer finds it counted
                metrics.in_flight.dec()
                working.ended()
                if admission is not None:
                    admission.in_flight -= 1
                    admission.delay.served()
                metrics.finished(code, time.perf_counter() - began_s)
                if audited:
                    self._access.audit(method, code.name)
            try:
                return await _abort(context, refusal, call_id)
            finally:
                del refusal  # which knows this frame

        return guarded


def _return_id(context: Context, trailing: tuple[tuple[str, str]]) -> None:
    """Put the request id back when the method has set trailing metadata of its own."""
    current: Any = context.trailing_metadata()
    if current is not trailing:
        context.set_trailing_metadata((*(current or ()), *trailing))


def _call_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and 0 < len(value) <= LONGEST_REQUEST_ID:
            return str(value)
    return secrets.token_hex(8)


def _known(error: Exception, method: str, call_id: str) -> MeshError:
    """The typed error for whatever a method raised; what is not typed is logged here and says nothing to the client."""
    if isinstance(error, MeshError):
        if error.code in OUR_FAULT:
            log.error("call failed", method=method, error=str(error), exc_info=error)
        else:
            log.debug("call refused", method=method, code=error.code.name, error=str(error))
        return error
    if isinstance(error, NotImplementedError):
        return Unimplemented(f"{method} is not implemented by this version")
    if isinstance(error, TimeoutError):
        log.error("call timed out inside the server", method=method, exc_info=error)
        return DeadlineExceeded("something that the server waited for did not answer in time")
    log.error("call crashed", method=method, exc_info=error)
    return _internal(call_id)


def _internal(call_id: str) -> Internal:
    return Internal("internal error", hint=f"give this request id to the operators: {call_id}")


async def _refuse(context: Context, refusal: Refusal) -> None:
    trailing = ((REQUEST_ID, _call_id(context)), (STATUS_DETAILS, refusal.details))
    await _end(context, refusal.code, refusal.message, trailing)


async def _abort(context: Context, error: MeshError, call_id: str) -> None:
    status = to_status(error, request_id=call_id)
    own = tuple(pair for pair in context.trailing_metadata() or () if pair[0] not in (REQUEST_ID, STATUS_DETAILS))
    trailing = (*own, (REQUEST_ID, call_id), (STATUS_DETAILS, status.SerializeToString()))
    await _end(context, error.code, status.message, trailing)


async def _end(
    context: Context, code: grpc.StatusCode, message: str, trailing: tuple[tuple[str, str | bytes], ...]
) -> None:
    try:
        await context.abort(code, message, trailing)
    except grpc.aio.AbortError as aborted:
        # grpc (1.85) keeps it with the call, and it knows the frames that it went through, which know the call, and the
        # service: a cycle, which would never be freed if it were frozen.
        if (task := asyncio.current_task()) is not None:
            task.add_done_callback(partial(_forget_frames, aborted))
        raise


def _forget_frames(error: BaseException, _done: object) -> None:
    error.__traceback__ = None


def _status_code(code: grpc.StatusCode | int | None) -> grpc.StatusCode:
    """grpc.aio's context gives the code as it was set, which may be a number."""
    if isinstance(code, grpc.StatusCode):
        return code
    return _CODES.get(code or 0, grpc.StatusCode.UNKNOWN)
