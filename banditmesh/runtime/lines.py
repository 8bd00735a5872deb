"""Who stands in which line until the event loop takes calls up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc

from banditmesh.runtime.invocation import Handler


class Lines:
    """Takes what generated code adds to a server. All methods share one line, but for some that have one each.

    Generated code would give each method its own. But for every call that it takes up grpc.aio (1.85) looks at all
    lines anew, 2 µs for each at least (`benchmarks/overload.md`). A method needs its own line when others must not be
    cut off because it has too many callers, or when its callers must not be cut off because others have.
    """

    def __init__(self, server: grpc.aio.Server, own: Iterable[str]) -> None:
        """``own``: methods with a line each, by full name; those that nobody adds have none."""
        self._server = server
        self._own = frozenset(own)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add methods to the shared line."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """The same methods once more: those with a line of their own get it."""
        own = {name: handler for name, handler in handlers.items() if f"/{service}/{name}" in self._own}
        if own:
            self._server.add_registered_method_handlers(service, own)
