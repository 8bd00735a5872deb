"""Which files of a folder count.

A file that a range has written counts once its range is complete, unless a compacted file has replaced it. A compacted
file counts when the folder's index names it. The index is changed by compare-and-set, so that of two who rewrite a
folder at the same time one has to begin again; whoever has changed rows in a folder moves its index on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from pydantic import TypeAdapter, ValidationError

from banditmesh.archive.layout import Folder, Range, range_of
from banditmesh.archive.state import State, is_complete
from banditmesh.runtime.errors import Aborted, AlreadyExists, DataLoss, NotFound
from banditmesh.runtime.store import Store


@dataclass(frozen=True)
class Index:
    """Attributes:
    moved: How often rows of the folder were rewritten.
    compacted: Name of each compacted file → names of the files whose rows it has. Those are never made again.
    """

    moved: int = 0
    compacted: dict[str, list[str]] = field(default_factory=dict)

    @property
    def replaced(self) -> frozenset[str]:
        """Names of files that do not count any more."""
        return frozenset(name for names in self.compacted.values() for name in names)

    def owner(self, name: str) -> str | None:
        """The compacted file that has the rows of this one now."""
        found = next((owner for owner, names in self.compacted.items() if name in names), None)
        return found and (self.owner(found) or found)

    def ranges(self, name: str) -> list[Range]:
        """The ranges that a file has rows of."""
        part = range_of(name)
        return [part] if part else [each for names in self.compacted.get(name, ()) for each in self.ranges(names)]


_INDEX = TypeAdapter(Index)


@dataclass(frozen=True)
class HeldIndex:
    """An index as it was read, with what it takes to change it. ``etag`` None: the folder has none."""

    index: Index
    etag: str | None


async def get_index(store: Store, folder: Folder) -> HeldIndex:
    """The index of a folder; an empty one where there is none. Raises DataLoss when it cannot be read."""
    try:
        found = await store.get(folder.index_key)
    except NotFound:
        return HeldIndex(Index(), None)
    try:
        return HeldIndex(_INDEX.validate_json(found.body), found.etag)
    except ValidationError as error:
        raise DataLoss("the index cannot be read", field="key", value=folder.index_key) from error


async def put_index(store: Store, folder: Folder, index: Index, held: HeldIndex) -> HeldIndex:
    """Change an index. Raises Aborted when it is not any more what was read."""
    body = json.dumps(asdict(index)).encode()
    try:
        if held.etag is None:
            return HeldIndex(index, await store.put_new(folder.index_key, body))
        return HeldIndex(index, await store.replace(folder.index_key, body, held.etag))
    except AlreadyExists as error:
        raise Aborted("somebody else rewrites this folder", field="key", value=folder.index_key) from error


def counting(names: Iterable[str], index: Index, states: Mapping[tuple[int, int], State]) -> list[str]:
    """Of the files that are in a folder, those whose rows count, each row once."""
    replaced = index.replaced
    return [
        name
        for name in sorted(names)
        if name.endswith(".parquet")
        and name not in replaced
        and ((part := range_of(name)) is None or is_complete(part, states))
        and (part is not None or name in index.compacted)
    ]
