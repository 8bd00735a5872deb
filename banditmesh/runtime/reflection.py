"""gRPC reflection that also knows methods and fields by name: ``grpcurl describe package.Service.Method``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from banditmesh.runtime.lines import Lines


class SymbolPool:
    """The default descriptor pool, finding a file by any symbol inside it.

    protobuf's pool (upb, 7.36) finds files by messages, enums and services only; for a method or a field the name of
    what contains it is tried.
    """

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # the name that protobuf gave it
        """The file that a symbol stands in. Raises KeyError when there is none."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            container = symbol.rpartition(".")[0]
            found = self._pool.FindFileContainingSymbol(container)
            if not _contains(found, symbol, container):
                raise
            return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def _contains(file: FileDescriptor, symbol: str, container: str) -> bool:
    within, name = container.rpartition(".")[2], symbol.rpartition(".")[2]
    service, message = file.services_by_name.get(within), file.message_types_by_name.get(within)
    return bool(
        (service is not None and name in service.methods_by_name)
        or (message is not None and name in message.fields_by_name)
    )


def enable_reflection(names: Iterable[str], lines: Lines) -> None:
    """Serve reflection for these services."""
    servicer = reflection.aio.ReflectionServicer(service_names=names, pool=SymbolPool())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, lines)
