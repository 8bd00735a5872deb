"""Who may call what: the ``access`` table of mesh.yaml, at work in front of every method.

A caller is known by its client certificate (SPIFFE id or DNS name, mutual TLS) or by a key that it sends as
``authorization: Bearer …``, of which the table has the SHA-256 alone. Without a table everything is open.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, Counter, Gauge

from banditmesh.runtime.access_table import APP, OPERATOR, SERVICE, AccessTable, Caller
from banditmesh.runtime.errors import MeshError, PermissionDenied, ResourceExhausted, Unauthenticated
from banditmesh.runtime.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Needs:
    """What a method asks of its caller; an operator may call all of them.

    Attributes:
        role: ``app``, ``service`` or ``operator``.
        field: Of the request, that names the service whose role is needed; empty: that of any service.
    """

    role: str
    field: str = ""


def _methods(service: str, **needs: Needs) -> dict[str, Needs]:
    return {f"/banditmesh.{service}/{method}": each for method, each in needs.items()}


_APP, _OPERATOR, _OWN, _ANY_SERVICE = Needs(APP), Needs(OPERATOR), Needs(SERVICE, "service"), Needs(SERVICE)
METHODS: Final[Mapping[str, Needs]] = {
    **_methods(
        "crs_engine.v1.CrsEngineService",
        SelectContent=_APP,
        BatchSelectContents=_APP,
        RecommendContents=_APP,
        ExplainDecision=_OPERATOR,
        GetModelStatus=_OPERATOR,
    ),
    **_methods("tracker.v1.EventTrackerService", TrackEvents=_APP),
    **_methods(
        "importer.v1.ImporterService",
        NotifyMapping=_OWN,
        NotifyProfiles=_OPERATOR,
        # Whose job it is stands in the job: its service is looked at when it is found (require_service).
        GetImportJob=_ANY_SERVICE,
        WatchImportJob=_ANY_SERVICE,
        ListImportJobs=_OWN,
        CancelImportJob=_OPERATOR,
        RefreshContents=_OWN,
    ),
    **_methods("joiner.v1.JoinerService", GetJoinStatus=_OPERATOR, GetUserState=_OPERATOR),
    **_methods(
        "learner.v1.LearnerService",
        GetLearnerStatus=_OPERATOR,
        ListSnapshots=_OPERATOR,
        RollbackSnapshot=_OPERATOR,
        EvaluatePolicy=_OPERATOR,
        GetExperimentReport=_OPERATOR,
        ResumeVariant=_OPERATOR,
        WatchEvaluation=_OPERATOR,
    ),
}
"""What is not listed needs an operator."""
OPEN: Final = ("/grpc.health.", "/grpc.reflection.")
"""What needs nobody; reflection can be turned off."""
AUDITED_FIELDS: Final = (
    "placement",
    "model",
    "version",
    "service",
    "logic",
    "job_id",
    "uri",
    "relearn",
    "variant",
    "era",
)
"""Of a request, what an audit line repeats; never a user id, a token or a body."""
AUDITED_CHARACTERS = 256
"""Of each of them."""


@dataclass
class Call:
    """What is known of the call that the current task answers."""

    caller: str
    roles: frozenset[str]


ABOUT: ContextVar[Mapping[str, Any]] = ContextVar("about", default={})  # noqa: B039  # never changed
"""What the call is about, for its audit line."""
CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
"""None: there is no table, so everything is open."""


def require_service(service: str) -> None:
    """Raise PermissionDenied unless the current caller may see what is of this service: for methods that find out only
    on their way whose it is."""
    call = CURRENT.get()
    if call is not None and not call.roles & {OPERATOR, f"{SERVICE}:{service}"}:
        raise _denied(call, f"{SERVICE}:{service}" if service else OPERATOR)


def _shown(value: Any) -> Any:
    """A value of a request, which may be as long as a request: never a log line of megabytes."""
    return value[:AUDITED_CHARACTERS] + "…" if isinstance(value, str) and len(value) > AUDITED_CHARACTERS else value


class Access:
    """The gate of one server."""

    def __init__(self, registry: CollectorRegistry, now_s: Callable[[], float] = time.monotonic) -> None:
        """Open, until a table is set."""
        self._now_s = now_s
        self._table: AccessTable | None = None
        self._by_identity: dict[tuple[str, str], str] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._said_open = False
        self._refused = Counter(
            "banditmesh_access_refused_total",
            "Calls of somebody who is not known (unauthenticated), may not (denied), or calls too often (rate), by the "
            "role that the method needs",
            ["method", "role", "reason"],
            registry=registry,
        )
        self._open = Gauge(
            "banditmesh_access_open",
            "1 while there is no access table: whoever reaches the port may call everything",
            registry=registry,
        )
        self._open.set(1)

    @property
    def is_open(self) -> bool:
        """Whether everybody may call everything."""
        return self._table is None

    def set_table(self, table: AccessTable | None) -> None:
        """Let this table count from now on."""
        self._by_identity = {} if table is None else table.identities()
        self._buckets = {}
        self._table = table
        self._open.set(table is None)
        if table is None and not self._said_open:
            log.warning("no access table in mesh.yaml: whoever reaches this port may call everything")
        self._said_open = table is None

    def admit(self, method: str, context: Any) -> None:
        """Find out who calls, and set :data:`CURRENT`.

        Raises:
            Unauthenticated: The caller is not in the table.
            PermissionDenied: It has no role for this method.
            ResourceExhausted: It calls more often than it may.
        """
        table = self._table
        if table is None or method.startswith(OPEN):
            return
        needs = METHODS.get(method, _OPERATOR)
        try:
            names = self._callers(context)
            call = Call("+".join(names), frozenset(role for name in names for role in table.callers[name].roles))
            CURRENT.set(call)
            if not _may(call.roles, needs):
                raise _denied(call, needs.role)
            self._take(names, table.callers)
        except MeshError as error:
            reason = {Unauthenticated: "unauthenticated", PermissionDenied: "denied"}.get(type(error), "rate")
            self._refused.labels(method, needs.role, reason).inc()
            log.info("call refused", method=method, needs=needs.role, reason=reason, peer=context.peer())
            raise

    def look_at(self, method: str, request: Any) -> None:
        """What needs the request: whether the caller may do this to that service. Raises PermissionDenied."""
        call, needs = CURRENT.get(), METHODS.get(method, _OPERATOR)
        if not isinstance(request, Message):
            return
        names = request.DESCRIPTOR.fields_by_name
        ABOUT.set({each: _shown(getattr(request, each)) for each in AUDITED_FIELDS if each in names})
        if call is not None and needs.field:
            try:
                require_service(getattr(request, needs.field))
            except PermissionDenied:
                self._refused.labels(method, needs.role, "denied").inc()
                raise

    def audit(self, method: str, code: str) -> None:
        """Write a line about a call of an admin method that has ended."""
        call = CURRENT.get()
        log.info(
            "admin call",
            audit=True,
            method=method,
            caller=call.caller if call is not None else "anybody",
            code=code,
            **ABOUT.get(),
        )

    def _callers(self, context: Any) -> list[str]:
        """Names of the callers that the certificate or the key stands for; mostly one."""
        metadata = dict(context.invocation_metadata() or ())
        given = str(metadata.get("authorization", ""))
        if given:
            scheme, _, key = given.partition(" ")
            name = self._by_identity.get(("key", hashlib.sha256(key.strip().encode()).hexdigest()))
            if scheme.lower() != "bearer" or name is None:
                raise Unauthenticated(
                    "the key is not one of the access table",
                    field="authorization",
                    hint="send `authorization: Bearer KEY`; mesh.yaml has the SHA-256 of each key that counts",
                )
            return [name]
        shown = context.auth_context() or {}
        found = [
            self._by_identity.get((kind, value.decode(errors="replace")))
            for kind, values in (("spiffe", shown.get("peer_spiffe_id")), ("dns", shown.get("peer_dns")))
            for value in values or ()
        ]
        names = list(dict.fromkeys(name for name in found if name is not None))
        if not names:
            raise Unauthenticated(
                "the caller is not known: it shows no key and no client certificate that the access table lists",
                hint="send `authorization: Bearer KEY`, or call by mutual TLS with a certificate that mesh.yaml names",
            )
        return names

    def _take(self, names: Iterable[str], callers: Mapping[str, Caller]) -> None:
        for name in names:
            rate = callers[name].calls_per_s
            if rate is None:
                continue
            now_s = self._now_s()
            bucket = self._buckets.setdefault(name, _Bucket(max(1.0, rate), now_s))
            wait_s = bucket.take(rate, now_s)
            if wait_s > 0:
                raise ResourceExhausted(f"{name} may make {rate:g} calls a second", retry_after_s=wait_s)


@dataclass
class _Bucket:
    tokens: float
    at_s: float

    def take(self, rate: float, now_s: float) -> float:
        """0 when there is a token, which is taken; else the seconds until there is one."""
        self.tokens = min(max(1.0, rate), self.tokens + (now_s - self.at_s) * rate)
        self.at_s = now_s
        if self.tokens < 1:
            return (1 - self.tokens) / rate
        self.tokens -= 1
        return 0.0


def is_admin(method: str) -> bool:
    """Whether only operators may call a method of the mesh, so that each call of it leaves a line in the log."""
    needs = METHODS.get(method)
    return needs is not None and needs.role == OPERATOR


def _may(roles: frozenset[str], needs: Needs) -> bool:
    if OPERATOR in roles or needs.role in roles:
        return True
    return needs.role == SERVICE and any(role.startswith(f"{SERVICE}:") for role in roles)


def _denied(call: Call, role: str) -> PermissionDenied:
    return PermissionDenied(
        f"{call.caller} has the roles {', '.join(sorted(call.roles))}; this needs {role}",
        hint="roles stand under access.callers in mesh.yaml",
    )
