"""A mapping file or folder, read in threads one batch ahead of whoever writes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import TypeVar

from banditmesh.runtime.errors import PermissionDenied
from services.importer.failure import Failure, ImportFailed
from services.importer.profiles import ProfilesPacker
from services.importer.rows import Packed, Packer
from services.importer.sources.files import Files
from services.importer.sources.filesystems import parse_uri
from services.importer.sources.formats import CsvOptions, FileOptions
from services.importer.sources.opening import open_file, open_text
from services.importer.sources.parquet import ParquetPart
from services.importer.sources.parts import Listing, Part, list_parts
from services.importer.sources.places import FileAccess
from services.importer.sources.records import Batch, CheckColumns, TextBatch
from services.importer.sources.text import read_text

T = TypeVar("T")
SURVEY_ROWS = 5000


class Source:
    """The parts behind one URI."""

    def __init__(self, place: Files, listing: Listing, csv: CsvOptions) -> None:
        self._place = place
        self._csv = csv
        self.parts = listing.parts
        self.warnings = listing.warnings

    @classmethod
    async def open(cls, uri: str, options: FileOptions, access: FileAccess) -> Source:
        """List the parts. Raises ImportFailed; see :func:`list_parts`."""

        def listed() -> Source:
            location = parse_uri(uri)
            try:
                place = access.place_of(location)
            except PermissionDenied as error:
                raise ImportFailed(Failure("not_allowed", str(error), file=uri)) from error
            return cls(place, list_parts(place, location, options), options.csv)

        return await asyncio.to_thread(listed)

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)

    async def check_parquet(self, packer: Packer) -> int | None:
        """Check the columns of all Parquet files before a row is written; return how many rows there are, None unless
        all parts are Parquet: only these say it at once.

        Raises:
            ImportFailed: ``wrong_column``, ``unreadable_file``, ``file_not_found``.
        """

        def checked() -> int | None:
            rows = [self._check_parquet(part, packer) for part in self.parts if part.format == "parquet"]
            return sum(rows) if len(rows) == len(self.parts) else None

        return await asyncio.to_thread(checked)

    async def survey(self, packer: ProfilesPacker) -> None:
        """Show a packer every row of the text files, before it packs any. Raises ImportFailed."""

        def shown(part: Part) -> None:
            with ExitStack() as stack:
                for batch in self._text(part, packer.check_columns, stack, 0, SURVEY_ROWS):
                    packer.learn(batch)

        for part in self.parts:
            if part.format != "parquet":
                await asyncio.to_thread(shown, part)

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
            file = stack.enter_context(open_file(self._place, part.name, part.uri))
            parquet = ParquetPart(file, part)
            packer.check_schema(parquet.schema, part.uri)
            return parquet.read(after_row=after_row, batch_rows=batch_rows)
        return self._text(part, packer.check_columns, stack, after_row, batch_rows)

    def _text(
        self, part: Part, check_columns: CheckColumns, stack: ExitStack, after_row: int, batch_rows: int
    ) -> Iterator[TextBatch]:
        return read_text(
            open_text(self._place, part, self._csv, stack),
            part,
            check_columns,
            self._csv,
            after_row=after_row,
            batch_rows=batch_rows,
            may_be_empty=len(self.parts) > 1,
        )

    def _check_parquet(self, part: Part, packer: Packer) -> int:
        with open_file(self._place, part.name, part.uri) as file:
            parquet = ParquetPart(file, part)
            packer.check_schema(parquet.schema, part.uri)
            return parquet.rows


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
