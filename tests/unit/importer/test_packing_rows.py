"""Checking and packing of rows, without a server."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from banditmesh.bandits.hashing import content_key
from banditmesh.runtime import packing
from services.importer.mapping import MappingPacker
from services.importer.profiles import ProfilesPacker
from services.importer.reasons import in_words
from services.importer.rows import Packed
from services.importer.sources.parts import Part
from services.importer.sources.records import ArrowBatch, TextBatch

PARQUET = Part("m.parquet", "file:///m.parquet", "parquet", 0)
JSON = Part("m.jsonl", "file:///m.jsonl", "jsonl", 0)
CSV = Part("m.csv", "file:///m.csv", "csv", 0)


def arrow(**columns: Any) -> ArrowBatch:
    batch = pa.record_batch(columns)
    return ArrowBatch(PARQUET, np.arange(1, len(batch) + 1), batch, len(batch))


def reasons(packed: Packed) -> list[tuple[int, str]]:
    return [(reject.row, reject.reason) for reject in packed.rejects]


def texts(*values: bytes) -> pa.Array:
    """Texts as Parquet may hold them: any bytes."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def packer(most: int = 3) -> MappingPacker:
    return MappingPacker("weather", version=7, max_candidates=most)


def test_a_batch_is_packed_as_single_values_are() -> None:
    packed = packer().pack(
        arrow(user_id=["a", "b", "c"], contents=[["sun", "rain"], [], ["sun"]], scores=[[2, 1], [], None])
    )

    sun, rain = content_key("weather", "sun"), content_key("weather", "rain")
    assert packed.users == ["a", "b", "c"]
    assert packed.values == [
        packing.pack_candidates(7, np.array([sun, rain], np.uint64), np.array([2, 1], np.float32)),
        packing.pack_candidates(7, np.array([], np.uint64)),
        packing.pack_candidates(7, np.array([sun], np.uint64)),
    ]
    assert packed.fresh_contents == ["sun", "rain"]


def test_a_content_is_fresh_once() -> None:
    mapping = packer()
    mapping.pack(arrow(user_id=["a"], contents=[["sun"]]))

    packed = mapping.pack(arrow(user_id=["b"], contents=[["rain", "sun"]]))

    assert packed.fresh_contents == ["rain"]
    assert packing.unpack_candidates(packed.values[0])[1].tolist() == [
        content_key("weather", "rain"),
        content_key("weather", "sun"),
    ]


def test_texts_that_are_not_utf8_are_rejected_out_of_parquet_too() -> None:
    contents = pa.ListArray.from_arrays([0, 1, 2], texts(b"sun", b"\xff"))

    packed = packer().pack(arrow(user_id=texts(b"a", b"b"), contents=contents))
    other = packer().pack(arrow(user_id=texts(b"\xfe", b"b"), contents=[["sun"], ["sun"]]))

    assert (packed.users, reasons(packed)) == (["a"], [(2, "content_id_not_utf8")])
    assert (other.users, reasons(other)) == (["b"], [(1, "user_id_not_utf8")])


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (float("nan"), "score_not_finite"),
        (float("inf"), "score_not_finite"),
        (65505.0, "score_out_of_range"),
        (None, "score_not_finite"),
    ],
)
def test_a_score_that_16_bits_do_not_hold_is_rejected(score: float | None, reason: str) -> None:
    packed = packer().pack(arrow(user_id=["a", "b"], contents=[["sun"], ["sun"]], scores=[[1.0], [score]]))

    assert (packed.users, reasons(packed)) == (["a"], [(2, reason)])


@pytest.mark.parametrize(
    "kind",
    [pa.large_list(pa.large_string()), pa.list_(pa.dictionary(pa.int32(), pa.string())), pa.list_(pa.string(), 1)],
)
def test_every_way_in_which_parquet_writes_lists_of_texts_is_read(kind: pa.DataType) -> None:
    contents = pa.array([["sun"], ["rain"]], pa.list_(pa.string())).cast(kind) if kind.num_fields else None
    batch = arrow(user_id=["a", "b"], contents=contents)
    packer().check_schema(batch.columns.schema, "m")

    assert packer().pack(batch).fresh_contents == ["sun", "rain"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("f", "f"),
        ("25", 25.0),
        ("-1.5e3", -1500.0),
        ("007", "007"),
        ("25-34", "25-34"),
        ("a|b", ["a", "b"]),
        ("nan", "nan"),
    ],
)
def test_a_csv_value_is_a_list_a_number_or_a_text(text: str, value: object) -> None:
    batch = TextBatch(CSV, [2], [{"user_id": "u", "field": text, "used_services": "weather", "empty": ""}], [], 2)

    packed = ProfilesPacker(version=3).pack(batch)

    assert packing.unpack_profile(packed.values[0]) == (3, {"field": value, "used_services": ["weather"]})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "number_not_finite"),
        (10**400, "number_not_finite"),
        ({"a": 1}, "unsupported_value"),
        ([{"a": 1}], "list_item_not_text"),
        ("\ud800", "not_utf8"),
        ("x" * 5000, "profile_too_large"),
    ],
)
def test_a_profile_value_that_cannot_be_kept_rejects_its_row(value: object, reason: str) -> None:
    part = Part("p.jsonl", "file:///p.jsonl", "jsonl", 0)
    batch = TextBatch(part, [1, 2], [{"user_id": "a", "f": value}, {"user_id": "b", "f": "x"}], [], 2)

    packed = ProfilesPacker(version=1).pack(batch)

    assert (packed.users, reasons(packed)) == (["b"], [(1, reason)])
    packed.rejects[0].line()


def test_used_services_must_be_a_list() -> None:
    part = Part("p.jsonl", "file:///p.jsonl", "jsonl", 0)
    batch = TextBatch(part, [1], [{"user_id": "a", "used_services": "weather"}], [], 1)

    assert reasons(ProfilesPacker(version=1).pack(batch)) == [(1, "not_a_list")]


def test_broken_utf8_in_a_parquet_profile_rejects_its_row() -> None:
    packed = ProfilesPacker(version=1).pack(arrow(user_id=["a", "b"], gender=texts(b"f", b"\xff")))

    assert (packed.users, reasons(packed)) == (["a"], [(2, "not_utf8")])


@pytest.mark.parametrize("written", ["['sun', 'rain']", '["sun","rain"]', "{sun,rain}", "['sun' 'rain']", "[sun|rain]"])
def test_a_list_in_the_brackets_of_another_tool_is_no_content(written: str) -> None:
    batch = TextBatch(CSV, [2, 3], [{"user_id": "a", "contents": written}, {"user_id": "b", "contents": "sun"}], [], 3)

    packed = packer().pack(batch)

    assert (packed.users, reasons(packed)) == (["b"], [(2, "contents_in_brackets")])


def doubts(packed: Packed) -> dict[str, int]:
    return {warning.reason: warning.count for warning in packed.warnings}


def test_ids_that_a_tool_spoiled_are_counted_among_contents_too() -> None:
    packed = packer().pack(arrow(user_id=["NULL", "a", r"\N"], contents=[["sun"], ["1.2E+15", "nan"], ["NA"]]))

    assert sum(warning.count for warning in packed.warnings if warning.reason == "id_looks_null") == 3
    assert [(each.row, each.count) for each in packed.warnings if each.reason == "id_looks_rounded"] == [(2, 1)]


EXCEL = ("1.23457E+11", "1,23457E+11", "1E+05", "1e+15", "1.0E10")


@pytest.mark.parametrize("written", EXCEL)
def test_an_id_whose_digits_a_tool_has_dropped_costs_its_row_in_a_csv(written: str) -> None:
    rows = [{"user_id": written, "contents": "sun"}, {"user_id": "a", "contents": f"sun|{written}"}]
    profiles = ProfilesPacker(version=1).pack(TextBatch(CSV, [2], [{"user_id": written, "x": "y"}], [], 2))
    mapping = packer().pack(TextBatch(CSV, [2, 3], rows, [], 3))

    assert reasons(mapping) == [(2, "user_id_rounded"), (3, "content_id_rounded")]
    assert reasons(profiles) == [(2, "user_id_rounded")]
    assert "format the column as text" in in_words("user_id_rounded")


@pytest.mark.parametrize("written", ["1e5", "12e4567", "1.5", "1.2E+11x", "v1.0"])
def test_an_id_that_may_well_be_one_is_kept(written: str) -> None:
    packed = packer().pack(TextBatch(CSV, [2], [{"user_id": written, "contents": written}], [], 2))

    assert (packed.users, reasons(packed)) == ([written], [])
    assert ("id_looks_rounded" in doubts(packed)) is (written == "1e5")


@pytest.mark.parametrize(
    ("written", "doubt"),
    [
        ("'u1'", "id_in_quotes"),
        ('="u1"', "id_in_quotes"),
        ('"u1"', "id_in_quotes"),
        ("\u201cu1\u201d", "id_in_quotes"),
        ("u\u200b1", "id_has_invisible_character"),
        ("u\x001", "id_has_invisible_character"),
        ("#DIV/0!", "id_looks_null"),
        ("#SPILL!", "id_looks_null"),
        ("17.0", "id_looks_rounded"),
        ("17.5", None),
        ("1,234,567", "id_in_groups"),
        ("12\u202f345", "id_in_groups"),
        ("12,34", None),
        ("o'neill", None),
        ("'", None),
    ],
)
def test_what_hardly_belongs_to_an_id_is_named_and_counted(written: str, doubt: str | None) -> None:
    expected = {} if doubt is None else {doubt: 2}

    assert doubts(packer().pack(arrow(user_id=[written, written], contents=[["sun"], ["sun"]]))) == expected
    assert doubts(ProfilesPacker(version=1).pack(arrow(user_id=[written, written], x=["a", "b"]))) == expected


def test_objects_among_the_contents_are_refused_with_the_right_form() -> None:
    rows = [{"user_id": "a", "contents": [{"content_id": "sun", "score": 0.5}]}, {"user_id": "b", "contents": ["sun"]}]

    packed = packer().pack(TextBatch(JSON, [1, 2], rows, [], 2))

    assert (packed.users, reasons(packed)) == (["b"], [(1, "content_is_an_object")])
    assert "'content_id': 'sun'" in packed.rejects[0].raw
    assert '{"contents": ["c1", "c2"], "scores": [0.9, 0.5]}' in in_words("content_is_an_object")


@pytest.mark.parametrize(
    ("cells", "warned"),
    [
        (["a,b", "c,d"], True),
        (["a|b", "c,d"], False),
        (["a", "b"], False),
        (["https://app.jp/a", "https://app.jp/b"], False),
        (["https://app.jp/a,https://app.jp/b", "https://app.jp/c,https://app.jp/d"], True),
    ],
)
def test_lists_by_another_separator_are_told_from_single_contents(cells: list[str], warned: bool) -> None:
    rows = [{"user_id": f"u{i}", "contents": cell} for i, cell in enumerate(cells)]

    packed = packer().pack(TextBatch(CSV, [2, 3], rows, [], 3))

    assert (doubts(packed) == {"list_separator_unused": 1}) is warned
    assert not warned or "most have ','" in packed.warnings[0].message


@pytest.mark.parametrize(
    ("ids", "users"),
    [
        (pa.array([Decimal(1), Decimal("9" * 38)], pa.decimal128(38, 0)), ["1", "9" * 38]),
        (pa.array([b"u1", b"u2"]), ["u1", "u2"]),
        (pa.array([7, 8]).dictionary_encode(), ["7", "8"]),
    ],
)
def test_profiles_take_every_user_id_that_a_mapping_takes(ids: pa.Array, users: list[str]) -> None:
    packed = ProfilesPacker(version=1).pack(arrow(user_id=ids, x=["a", "b"]))

    assert (packed.users, packed.rejects) == (users, [])


def test_a_time_beyond_every_calendar_costs_its_row() -> None:
    last = 253_402_300_799
    seconds = pa.array([last, last + 1, None, -(2**60)], pa.timestamp("s", "Asia/Tokyo"))
    days = pa.array([0, 0, 2**30, 0], pa.date32())

    packed = ProfilesPacker(version=1).pack(arrow(user_id=list("abcd"), seen=seconds, born=days))

    assert packing.unpack_profile(packed.values[0])[1]["seen"] == "9999-12-31T23:59:59Z"
    assert sorted(reasons(packed)) == [(row, "time_out_of_range") for row in (2, 3, 4)]


def test_every_field_of_json_has_a_name_as_those_of_a_header_have() -> None:
    batch = TextBatch(
        Part("p", "file:///p", "jsonl", 0), [1, 2], [{"user_id": "a", "": 1}, {"user_id": "b", "x" * 65: 1}], [], 2
    )

    assert reasons(ProfilesPacker(version=1).pack(batch)) == [(row, "field_name_not_1_to_64_bytes") for row in (1, 2)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("NULL", "looks_null"),
        (r"\N", "looks_null"),
        ("['a']", "list_in_brackets"),
        ("1.234,50", "number_otherwise"),
        ("3,5", "number_otherwise"),
        ("12 %", "number_otherwise"),
        ("1,23E+05", "number_otherwise"),
        ("TRUE", "boolean_otherwise"),
        ("False", "boolean_otherwise"),
        ("true", None),
        ("01067", None),
        ("+4930", None),
        ("NA", None),
    ],
)
def test_a_text_that_was_hardly_meant_as_one_is_named_once(text: str, reason: str | None) -> None:
    profiles = ProfilesPacker(version=1)
    batch = TextBatch(CSV, [2, 3], [{"user_id": "a", "age": "31"}, {"user_id": "b", "age": text}], [], 3)
    profiles.learn(batch)
    profiles.learn(batch)

    assert doubts(profiles.pack(batch)) == ({reason: 1} if reason else {})


@pytest.mark.parametrize("text", [".5", "5.", " 7", "7 ", "-.5e3"])
def test_numbers_as_oracle_and_sas_write_them_are_numbers(text: str) -> None:
    profiles = ProfilesPacker(version=1)
    batch = TextBatch(CSV, [2], [{"user_id": "a", "age": text}], [], 2)
    profiles.learn(batch)

    assert packing.unpack_profile(profiles.pack(batch).values[0])[1] == {"age": float(text)}


def test_a_number_that_loses_digits_is_named() -> None:
    packed = ProfilesPacker(version=1).pack(arrow(user_id=["a", "b"], account=[2**53, 2**53 + 1]))

    assert "9007199254740993 has more digits" in packed.warnings[0].message


@pytest.mark.parametrize("name", ["__index_level_0__", "Unnamed: 0"])
def test_row_numbers_of_pandas_are_no_column(name: str) -> None:
    rows = packer()
    rows.check_columns([name, "user_id", "contents"], "m.csv")
    assert doubts(rows.pack(arrow(user_id=["u"], contents=[["sun"]]))) == {"index_column_ignored": 1}
    profiles = ProfilesPacker(version=1)
    profiles.check_columns([name, "user_id", "x"], "p.csv")
    assert doubts(profiles.pack(arrow(user_id=["u"], x=["a"]))) == {"index_column_ignored": 1}
