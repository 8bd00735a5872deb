"""What a service's bootstrap has registered with its server. When mesh.yaml changes, the bootstrap runs again and makes
another generation, which takes over while the port stays open and no call fails.

The one before is freed when its last call, task and hook have ended: by reference counts alone, for the collector does
not look at what ``freeze_heap`` has frozen. So nothing that is heavy may lie in a cycle of references, or hang on one,
and nothing that outlives a generation may hold it: the transport keeps for ever what is registered with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from banditmesh.runtime.access_table import AccessTable
from banditmesh.runtime.admission import Door
from banditmesh.runtime.health import Check
from banditmesh.runtime.invocation import Handler
from banditmesh.runtime.lifecycle import BackgroundTasks, StopHooks

Register = Callable[[Any], None]
"""Adds a service's methods to a ``grpc.aio.Server``, or to what stands in for one."""


@dataclass
class Generation:
    """See the module.

    Attributes:
        alone: Its background tasks must not run beside those of the generation before.
        doors: What is asked before a call's request is received, by full name of the method.
    """

    tasks: BackgroundTasks
    hooks: StopHooks = field(default_factory=StopHooks)
    checks: dict[str, Check] = field(default_factory=dict)
    registrations: list[Register] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    until_drain: set[str] = field(default_factory=set)
    doors: dict[str, Door] = field(default_factory=dict)
    table: AccessTable | None = None
    alone: bool = False

    def check(self, check: Check) -> None:
        """Register a check. Raises ValueError when there is one of that name."""
        if check.name in self.checks:
            raise ValueError(f"there is a check named {check.name!r} already")
        self.checks[check.name] = check

    def finder(self) -> Callable[[str], Handler | None]:
        """Finds the handler of a method by its full name; None: this generation has no such method."""
        recorder = _Recorder()
        for register in self.registrations:
            register(recorder)
        return recorder.find


class _Details(NamedTuple):
    """What generic handlers look a method up by."""

    method: str
    invocation_metadata: tuple[()] = ()


class _Recorder:
    """Takes what generated code adds to a server."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, _service: str, _handlers: object) -> None:
        """The same methods once more."""

    def find(self, method: str) -> Handler | None:
        """The first handler for it."""
        found = (handler.service(_Details(method)) for handler in self._handlers)
        return next((handler for handler in found if handler is not None), None)
