"""One limit, one place: what one part of the mesh lets through the next one takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from banditmesh import lengths
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2
from banditmesh.contracts.provider.v1.provider_pb2 import Content
from banditmesh.runtime.errors import ConfigurationError, InvalidArgument
from banditmesh.runtime.mesh import parse_mesh
from services.crs_engine import validation
from services.crs_engine.attribute_columns import MOST_VALUES
from services.importer.content_check import content_problem
from services.importer.mapping import MappingPacker
from services.importer.profiles import ProfilesPacker
from services.importer.sources.parts import Part
from services.importer.sources.records import ArrowBatch

ROOT = Path(__file__).parents[3]


def mesh(**home: Any) -> str:
    services = {"news": {"logics": ["top"]}}
    return yaml.safe_dump({"services": services, "placements": {"home": {"sources": ["news/top"], **home}}})


def arrow(**columns: Any) -> ArrowBatch:
    batch = pa.record_batch(columns)
    return ArrowBatch(Part("m", "file:///m", "parquet", 0), np.arange(1, len(batch) + 1), batch, len(batch))


@pytest.mark.parametrize(
    "content_id",
    [
        "a",
        "é" * 128,
        "é" * 129,
        "x" * 256,
        "x" * 257,
        "a\tb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "a b",
        "雨",
        "https://a/b?c=d",
    ],
)
def test_a_content_that_a_mapping_may_name_a_provider_may_have(content_id: str) -> None:
    packer = MappingPacker("news", version=1, max_candidates=5)
    packed = packer.pack(arrow(user_id=["u"], contents=[[content_id]]))

    assert (packed.users == ["u"]) is (content_problem(Content(content_id=content_id)) == "")


@pytest.mark.parametrize("user_id", ["u", "é" * 64, "é" * 65, "u" * 128, "u" * 129])
def test_a_user_that_is_imported_may_ask(user_id: str) -> None:
    mapping = MappingPacker("news", version=1, max_candidates=5).pack(arrow(user_id=[user_id], contents=[["a"]]))
    profile = ProfilesPacker(version=1).pack(arrow(user_id=[user_id], age=["20s"]))
    request = crs_engine_pb2.SelectContentRequest(placement="home", user_id=user_id)
    try:
        asks = bool(validation.checked(request, ["home"]))
    except InvalidArgument:
        asks = False

    assert (bool(mapping.users), bool(profile.users)) == (asks, asks)


@pytest.mark.parametrize("size", [64, 65])
def test_a_field_that_mesh_yaml_names_can_be_there(size: int) -> None:
    name, fits = "x" * size, size <= lengths.MAX_NAME_BYTES
    request = crs_engine_pb2.SelectContentRequest(placement="home", user_id="u", context={name: "v"})
    content = Content(content_id="a", attributes=[{"name": name, "values": ["v"]}])  # type: ignore[list-item]
    profile = ProfilesPacker(version=1).pack(
        ArrowBatch(
            Part("p", "file:///p", "parquet", 0), np.array([1]), pa.record_batch({"user_id": ["u"], name: ["v"]}), 1
        )
    )
    takes = [content_problem(content) == "", bool(profile.users)]
    try:
        takes.append(bool(validation.checked(request, ["home"])))
    except InvalidArgument:
        takes.append(False)
    for home in (
        {"features": {"profile": [name]}},
        {"features": {"context": [name]}},
        {"features": {"content": [name]}},
        {"rules": [{"cap_per_attribute": {"attribute": name, "most": 1}}]},
        {"rules": [{"boost": {"of": {"attribute": name, "values": ["v"]}, "by": 0.1}}]},
        {"rules": [{"frequency_cap": {"per": name, "shown": 1}}]},
    ):
        try:
            takes.append(bool(parse_mesh(mesh(**home))))
        except ConfigurationError:
            takes.append(False)

    assert takes == [fits] * 9


@pytest.mark.parametrize("size", [256, 257])
def test_a_value_that_a_rule_looks_for_a_content_can_have(size: int) -> None:
    value = "x" * size
    content = Content(content_id="a", attributes=[{"name": "label", "values": [value]}])  # type: ignore[list-item]
    try:
        rule = bool(parse_mesh(mesh(rules=[{"boost": {"of": {"attribute": "label", "values": [value]}, "by": 0.1}}])))
    except ConfigurationError:
        rule = False

    assert rule is (content_problem(content) == "")


@pytest.mark.parametrize("names", [32, 33])
def test_a_request_can_have_all_of_the_context_that_a_placement_names(names: int) -> None:
    context = [f"c{at}" for at in range(names)]
    request = crs_engine_pb2.SelectContentRequest(placement="home", user_id="u", context=dict.fromkeys(context, "v"))
    try:
        asked = bool(validation.checked(request, ["home"]))
    except InvalidArgument:
        asked = False
    try:
        valid = bool(parse_mesh(mesh(features={"context": [*context, "hour", "weekday"]})))
    except ConfigurationError:
        valid = False

    assert (asked, valid) == (names <= lengths.MAX_CONTEXT_ENTRIES,) * 2


@pytest.mark.parametrize("dimensions", [512, 513])
def test_vectors_have_as_many_dimensions_as_a_provider_may_send(dimensions: int) -> None:
    content = Content(content_id="a", embedding=[1.0] * dimensions)
    try:
        valid = bool(parse_mesh(mesh() + f"vectors: {{dimensions: {dimensions}}}\n"))
    except ConfigurationError:
        valid = False

    assert valid is (content_problem(content, dimensions) == "")


def test_the_contracts_say_these_limits() -> None:
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "contracts.md").read_text())
    for said in (
        f"{lengths.MAX_NAME_BYTES} for names (placements, services, logics, context keys), "
        f"{lengths.MAX_USER_ID_BYTES} for user ids, {lengths.MAX_CONTEXT_VALUE_BYTES} for context values, of which a "
        f"request has at most {lengths.MAX_CONTEXT_ENTRIES}",
        f"A user id has up to {lengths.MAX_USER_ID_BYTES} bytes, a content id up to {lengths.MAX_CONTENT_ID_BYTES}",
        f"ids over {lengths.MAX_CONTENT_ID_BYTES} bytes, titles over {lengths.MAX_TITLE_BYTES // 1024} KiB, URIs over "
        f"{lengths.MAX_URI_BYTES // 1024} KiB",
        f"more than {lengths.MAX_CONTENT_BYTES // 1024} KiB without its body and embedding",
    ):
        assert said in page


def test_the_page_of_rules_says_how_many_values_are_compared() -> None:
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "rules.md").read_text())

    assert f"more than {MOST_VALUES} values (a content may have {lengths.MAX_VALUES} of one)" in page
    assert f"count the first {MOST_VALUES};" in page
