"""A mapping file or folder, read in threads one batch ahead of whoever writes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import TypeVar

import pyarrow as pa

from banditmesh.runtime.errors import PermissionDenied
from services.importer.failure import Failure, ImportFailed
from services.importer.rows import Packed, Packer
from services.importer.sources.files import Files
from services.importer.sources.filesystems import parse_uri
from services.importer.sources.parquet import ParquetPart
from services.importer.sources.parts import Part, list_parts
from services.importer.sources.places import FileAccess
from services.importer.sources.records import Batch
from services.importer.sources.text import read_text

T = TypeVar("T")


class Source:
    """The parts behind one URI."""

    def __init__(self, place: Files, parts: list[Part]) -> None:
        self._place = place
        self.parts = parts

    @classmethod
    async def open(cls, uri: str, access: FileAccess) -> Source:
        """List the parts. Raises ImportFailed; see :func:`list_parts`."""

        def listed() -> Source:
            location = parse_uri(uri)
            try:
                place = access.place_of(location)
            except PermissionDenied as error:
                raise ImportFailed(Failure("not_allowed", str(error), file=uri)) from error
            return cls(place, list_parts(place, location))

        return await asyncio.to_thread(listed)

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)

    async def row_count(self, packer: Packer) -> int | None:
        """Return how many rows there are, None unless all parts are Parquet: only these say it at once.

        Raises:
            ImportFailed: ``wrong_column``, ``unreadable_file``, ``file_not_found``: before a row has been written.
        """

        def counted() -> int | None:
            if any(part.format != "parquet" for part in self.parts):
                return None
            return sum(self._check_parquet(part, packer) for part in self.parts)

        return await asyncio.to_thread(counted)

    @asynccontextmanager
    async def read(
        self, part: Part, packer: Packer, *, after_row: int, batch_rows: int
    ) -> AsyncIterator[AsyncIterator[Packed]]:
        """Read a part from behind a row on; the next batch is read and packed while the caller writes this one.

        Raises:
            ImportFailed: While reading; see the readers.
        """

        def packed() -> Iterator[Packed]:
            with ExitStack() as stack:
                for batch in self._batches(part, packer, stack, after_row, batch_rows):
                    yield packer.pack(batch)

        async with aclosing(_one_ahead(packed)) as batches:
            yield batches

    def _batches(
        self, part: Part, packer: Packer, stack: ExitStack, after_row: int, batch_rows: int
    ) -> Iterator[Batch]:
        if part.format == "parquet":
            file = stack.enter_context(_opened(part, lambda: self._place.open(part.name)))
            parquet = ParquetPart(file, part)
            packer.check_schema(parquet.schema, part.uri)
            return parquet.read(after_row=after_row, batch_rows=batch_rows)
        stream = stack.enter_context(_opened(part, lambda: self._place.open(part.name)))
        if part.gzipped:
            stream = stack.enter_context(pa.CompressedInputStream(stream, "gzip"))
        return read_text(stream, part, packer.check_columns, after_row=after_row, batch_rows=batch_rows)

    def _check_parquet(self, part: Part, packer: Packer) -> int:
        with _opened(part, lambda: self._place.open(part.name)) as file:
            parquet = ParquetPart(file, part)
            packer.check_schema(parquet.schema, part.uri)
            return parquet.rows


def _opened(part: Part, opening: Callable[[], pa.NativeFile]) -> pa.NativeFile:
    try:
        return opening()
    except FileNotFoundError as error:
        raise ImportFailed(
            Failure("file_not_found", f"{part.uri} was there when the folder was listed and is gone", file=part.uri)
        ) from error
    except OSError as error:
        raise ImportFailed(
            Failure("unreadable_file", f"{part.uri} cannot be opened: {error}", file=part.uri)
        ) from error


async def _one_ahead(make: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """Iterate in a thread, one item ahead. Closing waits for the item that is being made, then closes the iterator."""
    iterator = make()
    end = object()

    def following() -> T | object:
        return next(iterator, end)

    ahead = asyncio.create_task(asyncio.to_thread(following))
    try:
        while (item := await asyncio.shield(ahead)) is not end:
            ahead = asyncio.create_task(asyncio.to_thread(following))
            yield item  # type: ignore[misc]
    finally:
        # A running thread cannot be stopped; the iterator can only be closed when it stands still.
        await asyncio.gather(ahead, return_exceptions=True)
        close = getattr(iterator, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
