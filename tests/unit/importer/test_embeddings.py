"""The vectors that contents are stored with: the provider's, or the text model's, and how they are packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.retrieval.text import TextModel
from banditmesh.runtime import packing
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.retrieval_options import Vectors
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import open_store
from banditmesh.runtime.text_snapshots import TEXT_MODEL, VECTORS
from services.importer.content_check import content_problem
from services.importer.embeddings import LOOK_S, Embeddings
from services.importer.metrics import ImporterMetrics

GIVEN = Content(content_id="a", embedding=[3.0, 0.0, 4.0, 0.0])
WORDS = Content(content_id="b", title="rain", body="in Kyoto", attributes=[Attribute(name="genre", values=["weather"])])


def unpacked(vector: bytes) -> list[float]:
    return np.frombuffer(vector, "<f2").astype(float).round(2).tolist()


async def test_a_given_vector_is_stored_with_length_1_and_words_get_theirs_once_there_is_a_model(
    tmp_path: Path,
) -> None:
    snapshots, clock = Snapshots(open_store(f"file://{tmp_path}"), None), ManualClock(1000.0)
    metrics = ImporterMetrics(CollectorRegistry())
    embeddings = Embeddings(Vectors(dimensions=4, embedding="text"), snapshots, clock, metrics)
    given, nothing = await embeddings.of([GIVEN, WORDS])
    assert unpacked(given) == [0.6, 0.0, 0.8, 0.0]
    assert nothing == b""
    rng = np.random.default_rng(1)
    model = TextModel(np.ones(64, np.float32), rng.normal(size=(64, 4)).astype(np.float32))
    manifest = Manifest(VECTORS, TEXT_MODEL, "text", {}, 0, 0, 0, {}, {})
    pointer = await snapshots.publish(manifest, model.tensors(), after=None)
    await clock.advance(LOOK_S)
    given, made = await embeddings.of([GIVEN, WORDS])
    assert unpacked(given) == [0.6, 0.0, 0.8, 0.0]
    expected = model.vectors(["rain\nin Kyoto\ngenre_weather"])[0]
    np.testing.assert_allclose(unpacked(made), expected, atol=0.01)
    # One of other dimensions is refused, and the one before serves.
    wide = TextModel(np.ones(64, np.float32), rng.normal(size=(64, 5)).astype(np.float32))
    await snapshots.publish(manifest, wide.tensors(), after=pointer)
    await clock.advance(LOOK_S)
    assert await embeddings.of([GIVEN, WORDS]) == [given, made]


async def test_without_embedding_text_words_make_no_vector(tmp_path: Path) -> None:
    snapshots = Snapshots(open_store(f"file://{tmp_path}"), None)
    metrics = ImporterMetrics(CollectorRegistry())
    assert await Embeddings(Vectors(), snapshots, ManualClock(0.0), metrics).of([WORDS]) == [b""]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (GIVEN, ""),
        (Content(content_id="a", embedding=[1.0] * 5), "embedding_of_other_dimensions"),
        (Content(content_id="a", embedding=[1.0] * 513), "embedding_too_long"),
        (Content(content_id="a", embedding=[1.0, float("nan"), 0, 0]), "embedding_not_finite"),
        (Content(content_id="a", embedding=[0.0] * 4), "embedding_is_zero"),
        (Content(content_id="a", body="é" * 32769), "body_too_long"),
    ],
)
def test_what_a_vector_and_a_body_must_be(content: Content, problem: str) -> None:
    assert content_problem(content, 4) == problem


def test_a_packed_content_with_a_vector_is_read_by_all_readers() -> None:
    vector = packing.pack_vector(np.array([1.0, 2.0, 2.0], np.float32))
    value = packing.pack_content("wétter", b"body", vector)
    assert packing.unpack_content(value) == ("wétter", b"body")
    assert packing.unpack_content_and_vector(value) == ("wétter", vector, b"body")
    assert packing.unpack_content_and_vector(packing.pack_content("w", b"body")) == ("w", b"", b"body")
    assert packing.pack_vector(np.zeros(3, np.float32)) == b""
