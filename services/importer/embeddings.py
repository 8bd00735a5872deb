"""The vectors of contents: what the Data Provider says, or what the text model makes of their words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np

from banditmesh.bandits.errors import BanditError
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.retrieval.text import TextModel, text_of
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.packing import pack_vector
from banditmesh.runtime.retrieval_options import Vectors
from banditmesh.runtime.snapshots import BadSnapshot, Pointer, Snapshots
from banditmesh.runtime.text_snapshots import TEXT_MODEL, VECTORS
from services.importer.metrics import ImporterMetrics

log = get_logger(__name__)

LOOK_S: Final = 10.0
_WORK: Final = "text model"


class Embeddings:
    """Looks for a newer text model now and then. Without one, contents that need it get no vector and are imported all
    the same: the next refresh gives them one."""

    def __init__(self, options: Vectors, snapshots: Snapshots, clock: Clock, metrics: ImporterMetrics) -> None:
        self._options = options
        self._snapshots = snapshots
        self._clock = clock
        self._metrics = metrics
        self._model: TextModel | None = None
        self._seen: Pointer | None = None
        self._look_at_s = 0.0
        self._loading = asyncio.Lock()

    async def of(self, contents: Sequence[provider_pb2.Content]) -> list[bytes]:
        """Each content's vector, packed; empty where it has none. Never raises because the store is away."""
        packed = [pack_vector(np.array(content.embedding, np.float32)) for content in contents]
        bare = [at for at, vector in enumerate(packed) if not vector]
        if self._options.embedding == "text" and bare:
            await self._look()
            if self._model is not None:
                vectors = await asyncio.to_thread(self._model.vectors, [words_of(contents[at]) for at in bare])
                for at, vector in zip(bare, vectors, strict=True):
                    packed[at] = pack_vector(vector)
        self._metrics.without_vector.inc(packed.count(b""))
        return packed

    async def _look(self) -> None:
        async with self._loading:
            if self._clock.monotonic_s() < self._look_at_s:
                return
            self._look_at_s = self._clock.monotonic_s() + LOOK_S
            try:
                pointer = await self._snapshots.moved(VECTORS, TEXT_MODEL, self._seen)
                if pointer is None:
                    outages.well(_WORK)
                    return
                snapshot = await self._snapshots.load(VECTORS, TEXT_MODEL, pointer.version)
                model = TextModel.from_tensors(snapshot.tensors)
                if model.dimensions != self._options.dimensions:
                    raise BadSnapshot(
                        "params",
                        f"it makes {model.dimensions} dimensions, vectors.dimensions is {self._options.dimensions}",
                    )
                self._model, self._seen = model, pointer
                outages.well(_WORK)
                log.info("text model loaded", version=pointer.version)
            except (MeshError, BadSnapshot, BanditError, OSError) as error:
                self._metrics.text_model_failures.inc()
                outages.failed(_WORK, error, hint="banditmesh embed fit makes one")


def words_of(content: provider_pb2.Content) -> str:
    """The text that a content's vector is made of."""
    return text_of(content.title, content.body, {each.name: each.values for each in content.attributes})
