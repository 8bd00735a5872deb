"""Who stands in which line until the event loop takes calls up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import grpc

from banditmesh.runtime.invocation import Context, Handler


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

    def open(self, methods: Iterable[str]) -> None:
        """A line for each of these methods, by full name, whoever answers them at the time: the server keeps for ever
        what is registered with it, so that is none of their handlers."""
        for method in methods:
            _, service, name = method.split("/")
            self._server.add_registered_method_handlers(service, {name: _NOBODY})

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add methods to the shared line."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """The same methods once more: those with a line of their own get it."""
        own = {name: handler for name, handler in handlers.items() if f"/{service}/{name}" in self._own}
        if own:
            self._server.add_registered_method_handlers(service, own)


async def _nobody(_request: object, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "nobody answers this method")


_NOBODY: Final = grpc.unary_unary_rpc_method_handler(_nobody)
"""The interceptor, which is asked first, knows who does."""
