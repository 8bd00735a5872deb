"""The few typed errors that every part of the mesh raises, and their form on the wire.

Code below the edge raises a :class:`MeshError` subclass and knows nothing of gRPC statuses; the server's interceptor
turns it into a status with ``google.rpc`` details (AIP-193), and :func:`from_rpc_error` turns such a status back on
the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "banditmesh"
SHOWN_VALUE_CHARACTERS = 80
"""A wrong value is echoed so that its sender recognises it, but never a whole payload."""
MESSAGE_BYTES, HINT_BYTES, FIELD_BYTES = 480, 240, 120
"""What of a text goes on the wire: a status travels in HTTP/2 trailers, and a gRPC client drops a call whose trailers
exceed 8 KiB.
"""


def printable(text: str) -> str:
    """A text of somebody else on one line: what a terminal obeys rather than shows is escaped, as in ``repr``."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class MeshError(Exception):
    """What went wrong, with which value of which field, and what to do about it.

    ``field``: path of the request field or configuration key, in the words of whoever wrote it (``events[3].token``).
    ``value``: the offending value; only its first 80 characters leave the process. Never pass a secret.
    ``hint``: what the caller can do. ``retry_after_s``: seconds after which the same request may succeed.
    ``metadata``: further facts for machines (``ErrorInfo.metadata``). ``dependency``: which one is away, for the log of
    this process (:mod:`banditmesh.runtime.outages`); it does not leave it.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        value: object = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        dependency: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.dependency = dependency

    @property
    def reason(self) -> str:
        """``ErrorInfo.reason``: the class name in UPPER_SNAKE_CASE, which is what clients may switch on."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).upper()

    @property
    def shown_value(self) -> str | None:
        """``repr`` of the value, at most 80 characters; None when there is no value."""
        if self.value is None:
            return None
        value = self.value
        if isinstance(value, str | bytes):  # of megabytes even a repr takes long
            value = value[: SHOWN_VALUE_CHARACTERS + 1]
        text = repr(value)
        return text if len(text) <= SHOWN_VALUE_CHARACTERS else text[: SHOWN_VALUE_CHARACTERS - 3] + "..."

    def __str__(self) -> str:
        parts = [self.message]
        if self.field is not None:
            parts.append(f"field {self.field}")
        if self.value is not None:
            parts[-1] += f" (got {self.shown_value})"
        if self.hint is not None:
            parts.append(self.hint)
        return "; ".join(parts)


class InvalidArgument(MeshError):
    """The request can never succeed as it is."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(MeshError):
    """What the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(MeshError):
    """What the request would create is there already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(MeshError):
    """The system is not in the state that the request needs; retrying alone does not help."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Unavailable(MeshError):
    """A dependency is away; the same request may succeed later."""

    code = grpc.StatusCode.UNAVAILABLE


class ResourceExhausted(MeshError):
    """A bound (queue, size, quota) is reached."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class PermissionDenied(MeshError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(MeshError):
    """The caller, or the token that it shows, is not what it says."""

    code = grpc.StatusCode.UNAUTHENTICATED


class DeadlineExceeded(MeshError):
    """It took longer than the caller, or the server's default, allows."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Aborted(MeshError):
    """Somebody else was first (a stale etag, a lost lease): read again and decide anew."""

    code = grpc.StatusCode.ABORTED


class Unimplemented(MeshError):
    """The contract has it, this version does not; the message says why."""

    code = grpc.StatusCode.UNIMPLEMENTED


class DataLoss(MeshError):
    """Stored data is broken (checksum, shape, format) and cannot be read back."""

    code = grpc.StatusCode.DATA_LOSS


class Internal(MeshError):
    """A bug of ours."""

    code = grpc.StatusCode.INTERNAL


class Foreseen(Exception):
    """An end that code was written for, and that no retry mends."""


def is_expected(error: BaseException) -> bool:
    """Whether an error is one of the world's: an outage, credentials that have run out, another process in one's place.
    It says by itself what is wrong, so a log has one line of it; tracebacks are for bugs."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_expected, error.exceptions))
    if isinstance(error, Foreseen):
        return True
    if isinstance(error, MeshError):
        return error.code is not grpc.StatusCode.INTERNAL
    return isinstance(error, TimeoutError | ConnectionError)


def in_one_line(error: BaseException) -> str:
    """What an expected error says."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(in_one_line, error.exceptions))
    return str(error) or type(error).__name__


def dependency_of(error: BaseException) -> str | None:
    """Which dependency an error says is away; None: it names none."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(dependency_of, error.exceptions)), None)
    return error.dependency if isinstance(error, MeshError) else None


class ConfigurationError(FailedPrecondition):
    """Settings or ``mesh.yaml`` are wrong; a service prints the message without a traceback and exits with 2.

    ``problems``: one line each, shown beneath the message.
    """

    def __init__(
        self,
        message: str,
        problems: tuple[str, ...] = (),
        *,
        field: str | None = None,
        value: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, field=field, value=value, hint=hint)
        self.problems = problems

    def __str__(self) -> str:
        lines = [self.message, *(f"  - {problem}" for problem in self.problems)]
        return "\n".join([*lines, self.hint] if self.hint else lines)


_BY_CODE: Mapping[grpc.StatusCode, type[MeshError]] = {
    error.code: error
    for error in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Unavailable,
        ResourceExhausted,
        PermissionDenied,
        Unauthenticated,
        DeadlineExceeded,
        Aborted,
        Unimplemented,
        DataLoss,
        Internal,
    )
}


def to_status(error: MeshError, *, request_id: str | None = None) -> status_pb2.Status:
    """The status of an error, with ErrorInfo always, BadRequest when a field is named, RetryInfo when a retry may
    help.
    """
    metadata = {name: _short(value, HINT_BYTES) for name, value in error.metadata.items()}
    text, hint = _short(error.message, MESSAGE_BYTES), _short(error.hint or "", HINT_BYTES)
    if hint:
        metadata["hint"] = hint
    if request_id is not None:
        metadata["request_id"] = request_id
    details: list[message.Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    ]
    if error.field is not None:
        field = _short(error.field, FIELD_BYTES)
        got = f" (got {error.shown_value})" if error.value is not None else ""
        description = f"{text}{got}. {hint}" if hint else f"{text}{got}"
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field, description=description, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        text = f"{text}; field {field}{got}"
    elif error.value is not None:
        text = f"{text} (got {error.shown_value})"
    if hint:
        text = f"{text}; {hint}"
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(code=error.code.value[0], message=text, details=[_packed(each) for each in details])


def error_type(code: int) -> type[MeshError]:
    """The class of a numeric gRPC status code, such as one item of a batch answer carries; codes without a class become
    Internal."""
    return next((kind for status, kind in _BY_CODE.items() if status.value[0] == code), Internal)


def from_rpc_error(error: grpc.aio.AioRpcError) -> MeshError:
    """The typed error behind a failed call of ours or of a Data Provider; codes without a class become Internal.

    CANCELLED is Unavailable: nobody here gave the call up (that raises asyncio.CancelledError), so the server's
    transport has cut it off, because it stops or because too many stood in line, before anything was done.
    """
    cut_off = error.code() is grpc.StatusCode.CANCELLED
    kind = Unavailable if cut_off else _BY_CODE.get(error.code(), Internal)
    field = hint = retry_after_s = None
    metadata: dict[str, str] = {}
    for detail in _details(error):
        match detail:
            case error_details_pb2.ErrorInfo():
                metadata = dict(detail.metadata)
                hint = metadata.pop("hint", None)
            case error_details_pb2.BadRequest() if detail.field_violations:
                field = detail.field_violations[0].field
            case error_details_pb2.RetryInfo():
                retry_after_s = max(0.0, detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    text = error.details() or error.code().name
    if hint is not None:
        text = text.removesuffix(f"; {hint}")
    if field is not None:
        text = text.partition(f"; field {field}")[0]
    return kind(text, field=field, hint=hint, retry_after_s=retry_after_s, metadata=metadata)


def _details(error: grpc.RpcError) -> Iterator[message.Message]:
    """The details of a status as far as they can be read: proxies and other servers send what they like."""
    call: Any = error  # from_call wants the trailing metadata alone, which AioRpcError has without being a grpc.Call
    try:
        status = rpc_status.from_call(call)
    except (ValueError, message.DecodeError):
        return
    for packed in () if status is None else status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            detail = kind()
            with suppress(message.DecodeError):
                if packed.Unpack(detail):
                    yield detail


def _short(text: str, most_bytes: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= most_bytes:
        return text
    return encoded[: most_bytes - 3].decode(errors="ignore") + "..."


def _packed(detail: message.Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
