from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from pyarrow import parquet

from banditmesh.bandits.hashing import content_key
from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.reader import CANDIDATES_AT_ONCE, ROWS_AT_ONCE, batches, read
from banditmesh.decisions.row import parse
from banditmesh.runtime.errors import InvalidArgument, NotFound

ROW: dict[str, Any] = {
    "t": 1.7e9,
    "user": "u1",
    "context": {"age": "20s", "hour": 9},
    "candidates": [
        {"id": "a1", "features": {"genre": "news", "x0": 0.12}},
        {"id": "a2", "features": {"genre": "sport", "x0": -1.0}},
    ],
    "shown": 1,
    "propensity": 0.1,
    "reward": 1.0,
}


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda body: pa.compress(body, codec="zstd", asbytes=True),
}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name != key}


def test_a_row_is_read_with_all_that_it_says(tmp_path: Path) -> None:
    (row,) = read(lines(tmp_path / "log.jsonl", ROW))
    assert (row.line, row.time_s, row.user, row.shown, row.propensity, row.reward) == (1, 1.7e9, "u1", 1, 0.1, 1.0)
    assert [candidate.id for candidate in row.candidates] == ["a1", "a2"]
    assert row.context.keys() == {"age", "hour"}
    assert row.candidates[0].features == {"genre": "news", "x0": 0.12}


@pytest.mark.parametrize(
    "time", ["2023-11-14T22:13:20Z", "2023-11-15T07:13:20.0000000+09:00", "2023-11-14 22:13:20", 1.7e9]
)
def test_times_are_seconds_or_iso_8601(tmp_path: Path, time: object) -> None:
    (row,) = read(lines(tmp_path / "log.jsonl", {**ROW, "t": time}))
    assert row.time_s == 1.7e9


@pytest.mark.parametrize(
    ("time", "says"),
    [
        (1_700_000_000_000, r"milliseconds are divided by 1000; field t \(got 1700000000000\)"),
        (3e38, "of the years 1 to 9999; field t"),
        (True, "must be seconds since 1970, .*field t"),
        ([], "must be seconds since 1970, .*field t"),
    ],
)
def test_a_number_that_is_no_time_is_refused(tmp_path: Path, time: object, says: str) -> None:
    with pytest.raises(BrokenRow, match=r"log\.jsonl:2: .*" + says):
        list(read(lines(tmp_path / "log.jsonl", ROW, {**ROW, "t": time})))


def test_a_truth_value_is_a_reward_and_no_propensity(tmp_path: Path) -> None:
    (row,) = read(lines(tmp_path / "log.jsonl", {**ROW, "reward": True}))
    assert row.reward == 1.0
    with pytest.raises(BrokenRow, match="field propensity"):
        list(read(lines(tmp_path / "log.jsonl", {**ROW, "propensity": True})))


@pytest.mark.parametrize("ending", COMPRESSED)
def test_a_compressed_log_is_read_whatever_its_name(tmp_path: Path, ending: str) -> None:
    whole = COMPRESSED[ending](json.dumps(ROW).encode() + b"\n" + json.dumps(ROW).encode())
    (tmp_path / "log.jsonl").write_bytes(whole)
    assert [row.line for row in read(tmp_path / "log.jsonl")] == [1, 2]


@pytest.mark.parametrize("ending", COMPRESSED)
@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_a_compressed_log_that_is_damaged_is_said_to_be(tmp_path: Path, ending: str, damage: str) -> None:
    whole = COMPRESSED[ending](b"".join(json.dumps({**ROW, "user": f"u{n}"}).encode() + b"\n" for n in range(500)))
    middle = len(whole) // 2
    damaged = whole[:middle] if damage == "cut off" else whole[:middle] + b"\x00" * 64 + whole[middle + 64 :]
    (tmp_path / "log").write_bytes(damaged)
    with pytest.raises(InvalidArgument, match=r"log(:\d+: no JSON| is broken after line \d+): "):
        list(read(tmp_path / "log"))


@pytest.mark.parametrize(
    ("body", "says"),
    [(b"PK\x03\x04" + bytes(30), "is a ZIP archive: unpack it"), ('{"t": 1}\n'.encode("utf-16"), "is UTF-16: iconv")],
    ids=["ZIP", "UTF-16"],
)
def test_what_has_no_lines_is_named(tmp_path: Path, body: bytes, says: str) -> None:
    (tmp_path / "log").write_bytes(body)
    with pytest.raises(InvalidArgument, match=f"log {says}"):
        list(read(tmp_path / "log"))


def test_timestamps_of_parquet_are_times(tmp_path: Path) -> None:
    at = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    parquet.write_table(pa.Table.from_pylist([{**ROW, "t": at}]), tmp_path / "log")
    assert [row.time_s for row in read(tmp_path / "log")] == [1.7e9]


def test_a_time_that_is_none_is_refused_with_one_that_is(tmp_path: Path) -> None:
    with pytest.raises(BrokenRow, match=r"log\.jsonl:1: .*2026-11-22T10:30:00Z; field t \(got '11/14/2023'\)"):
        list(read(lines(tmp_path / "log.jsonl", {**ROW, "t": "11/14/2023"})))


@pytest.mark.parametrize(
    ("times", "t"),
    [
        (pa.array([1_500_000_000_123_456_789], pa.timestamp("ns")), 1_500_000_000.123456),
        (pa.array([-1], pa.timestamp("ns", "UTC")), -1e-6),
        (pa.array([3600], pa.timestamp("s", "Asia/Tokyo")), 3600.0),
        (pa.array([3600], pa.timestamp("s", "No/Such_Zone")), 3600.0),
        (pa.array([20_000], pa.date32()), 20_000 * 86_400.0),
        (pa.array([Decimal("12.5")]), 12.5),
    ],
    ids=["nanoseconds", "before 1970", "zone", "unknown zone", "date", "decimal"],
)
def test_times_are_read_as_columns_have_them(tmp_path: Path, times: pa.Array, t: float) -> None:
    columns = pa.Table.from_pylist([ROW]).set_column(0, "t", times)
    parquet.write_table(columns, tmp_path / "log")
    (row,) = read(tmp_path / "log")
    assert row.time_s == pytest.approx(t, abs=1e-9)


def test_a_time_that_no_calendar_has_is_said_with_its_row(tmp_path: Path) -> None:
    times = pa.array([1, 300_000_000_000], pa.timestamp("s"))
    parquet.write_table(pa.Table.from_pylist([ROW, ROW]).set_column(0, "t", times), tmp_path / "log")
    with pytest.raises(BrokenRow, match=r"log:2: .*field t \(got .*11476"):
        list(read(tmp_path / "log"))


def test_uuids_and_decimals_are_texts_and_numbers(tmp_path: Path) -> None:
    context = pa.StructArray.from_arrays(
        [pa.array([Decimal("1.50")]), pa.array([Decimal(7)], pa.decimal128(9))], ["a", "b"]
    )
    columns = pa.Table.from_pylist([ROW])
    for name, column in (("context", context), ("user", pa.array([UUID(int=1).bytes], pa.uuid()))):
        columns = columns.set_column(columns.schema.get_field_index(name), name, column)
    parquet.write_table(columns, tmp_path / "log")
    (row,) = read(tmp_path / "log")
    assert row.context == {"a": 1.5, "b": 7}
    assert row.user == str(UUID(int=1))


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist([ROW]).append_column("user", pa.array(["u2"])), tmp_path / "log")
    with pytest.raises(InvalidArgument, match="column user stands twice"):
        list(read(tmp_path / "log"))


@pytest.mark.parametrize("nested", [False, True])
def test_a_type_that_its_writer_alone_knows_is_refused(tmp_path: Path, nested: bool) -> None:
    period = pa.field("month", pa.int64(), metadata={"ARROW:extension:name": "pandas.period"})
    months = pa.array([672])
    field = pa.field("context", pa.struct([period])) if nested else period.with_name("user")
    column = pa.StructArray.from_arrays([months], fields=[period]) if nested else months
    table = pa.Table.from_pylist([ROW]).select(["candidates", "reward"]).append_column(field, column)
    parquet.write_table(table, tmp_path / "log")
    with pytest.raises(InvalidArgument, match=r"context\.month.*pandas\.period" if nested else r"user.*pandas\.period"):
        list(read(tmp_path / "log"))


def test_gzip_and_parquet_say_the_same_as_json_lines(tmp_path: Path) -> None:
    second = {**without("propensity"), "shown": 0, "context": {"age": None, "hour": 10}}
    plain = lines(tmp_path / "log.jsonl", ROW, second)
    zipped, columns = tmp_path / "zipped", tmp_path / "columns"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    parquet.write_table(pa.Table.from_pylist([ROW, second]), columns)
    told = [
        [(row.line, row.context, row.candidates, row.shown, row.propensity) for row in read(path)]
        for path in (plain, zipped, columns)
    ]
    assert told[0] == told[1] == told[2]


def test_parquet_maps_are_features_too(tmp_path: Path) -> None:
    context = pa.array([[("age", "20s")]], pa.map_(pa.string(), pa.string()))
    candidates = pa.array([[{"id": "a1"}]])
    parquet.write_table(
        pa.table({"context": context, "candidates": candidates, "reward": [1.0]}), tmp_path / "log.parquet"
    )
    (row,) = read(tmp_path / "log.parquet")
    assert row.context.keys() == {"age"}


def test_bytes_are_texts_as_spark_hive_and_impala_write_them(tmp_path: Path) -> None:
    features = pa.array([[(b"genre", b"news"), (b"new", None)]], pa.map_(pa.binary(), pa.binary()))
    candidate = pa.StructArray.from_arrays([pa.array([b"a1"], pa.large_binary()), features], ["id", "features"])
    table = pa.table(
        {
            "user": pa.array(["ü1".encode()]).dictionary_encode(),
            "context": pa.array([{"age": b"20s", "tags": [b"p", b"q"]}]),
            "candidates": pa.ListArray.from_arrays([0, 1], candidate),
            "reactions": pa.array([[b"click"]]),
            "reward": [1.0],
        }
    )
    parquet.write_table(table, tmp_path / "log", store_schema=False)
    (row,) = read(tmp_path / "log")
    assert (row.user, row.ids, row.reactions) == ("ü1", ["a1"], ["click"])
    assert (row.context, row.features) == ({"age": "20s", "tags": ["p", "q"]}, [{"genre": "news"}])


def test_bytes_that_are_no_text_are_refused_with_their_row(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([ROW, ROW]).drop("user").append_column("user", pa.array([b"u1", b"\xff"]))
    parquet.write_table(table, tmp_path / "log")
    with pytest.raises(BrokenRow, match=r"log:2: must be a string; field user \(got b'\\xff'\)"):
        list(read(tmp_path / "log"))


def test_a_map_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    context = pa.array([[("age", 1.0), ("age", 2.0)]], pa.map_(pa.string(), pa.float64()))
    table = pa.Table.from_pylist([ROW]).drop("context").append_column("context", context)
    parquet.write_table(table, tmp_path / "log")
    with pytest.raises(InvalidArgument, match="key 'age' twice"):
        list(read(tmp_path / "log"))


def test_a_row_with_one_candidate_needs_no_index(tmp_path: Path) -> None:
    (row,) = read(lines(tmp_path / "log", {"candidates": [{"id": 7}], "reward": 0}))
    assert row.shown == 0
    assert row.candidates[0].id == "7"


def test_a_row_of_full_information_needs_neither_index_nor_reward(tmp_path: Path) -> None:
    (row,) = read(lines(tmp_path / "log", {"candidates": [{"id": "a", "reward": 0}, {"id": "b", "reward": 1}]}))
    assert row.has_all_rewards
    assert row.shown is None


def test_blank_lines_count_but_say_nothing(tmp_path: Path) -> None:
    assert [row.line for row in read(lines(tmp_path / "log", "\n", ROW, "  \n", ROW))] == [2, 4]


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (without("candidates"), "candidates"),
        ({**ROW, "candidates": []}, "candidates"),
        ({**ROW, "candidates": [{"features": {}}, {"id": "b"}]}, "candidates[0].id"),
        ({**ROW, "candidates": [{"id": "a"}, {"id": 1.5}]}, "candidates[1].id"),
        ({**ROW, "candidates": [{"id": "a"}, {"id": "b", "features": {"x": {"y": 1}}}]}, "candidates[1].features.x"),
        ({**ROW, "candidates": [{"id": "a"}, {"id": "b", "features": {"x": 1e39}}]}, "candidates[1].features.x"),
        ({**ROW, "context": {"tags": ["a", 1]}}, "context.tags"),
        ({**ROW, "context": [1]}, "context"),
        ({**ROW, "shown": 2}, "shown"),
        ({**ROW, "shown": True}, "shown"),
        (without("shown"), "shown"),
        ({**ROW, "propensity": 0}, "propensity"),
        ({**ROW, "propensity": 1.01}, "propensity"),
        ({**ROW, "reward": "1"}, "reward"),
        ({**ROW, "reward": 1e30}, "reward"),
        ({"candidates": [{"id": "a", "reward": 0}, {"id": "b", "reward": -1e30}]}, "candidates[1].reward"),
        ({**ROW, "reactions": "click"}, "reactions"),
        ({**ROW, "reactions": ["click", "klick"]}, "reactions[1]"),
        ({**ROW, "reactions": [["click"]]}, "reactions[0]"),
        (without("reward"), "reward"),
        ({**ROW, "t": "yesterday"}, "t"),
        ({**ROW, "user": {}}, "user"),
    ],
)
def test_a_broken_row_names_file_line_and_field(tmp_path: Path, broken: dict[str, Any], field: str) -> None:
    path = lines(tmp_path / "log.jsonl", ROW, broken)
    with pytest.raises(BrokenRow) as refused:
        list(read(path))
    assert str(refused.value).startswith(f"{path}:2: ")
    assert refused.value.field == field


@pytest.mark.parametrize("broken", ["{\n", "[1]\n", '{"candidates": [{"id": "a"}], "reward": NaN}\n', "\x00\n"])
def test_what_is_no_json_object_names_file_and_line(tmp_path: Path, broken: str) -> None:
    path = lines(tmp_path / "log.jsonl", ROW, broken)
    with pytest.raises(BrokenRow, match=f"{path}:2: "):
        list(read(path))


def test_bytes_that_are_no_text_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"user": "\xff\xfe"}\n')
    with pytest.raises(BrokenRow, match=f"{path}:1: "):
        list(read(path))


def test_a_broken_parquet_row_names_its_number(tmp_path: Path) -> None:
    rows = [{"candidates": [{"id": "a"}], "reward": 1.0}, {"candidates": [{"id": None}], "reward": 1.0}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    with pytest.raises(BrokenRow, match=r"log.parquet:2: "):
        list(read(tmp_path / "log.parquet"))


def test_a_file_that_is_not_there_and_files_cut_short_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read(tmp_path / "nothing")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(json.dumps(ROW).encode())[:-9])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    for name in ("cut.gz", "cut.parquet"):
        with pytest.raises(InvalidArgument, match=name):
            list(read(tmp_path / name))


def test_batches_end_early_when_rows_have_many_candidates(tmp_path: Path) -> None:
    wide = {"candidates": [{"id": str(n)} for n in range(CANDIDATES_AT_ONCE // 2)], "shown": 0, "reward": 1}
    assert [len(batch) for batch in batches(lines(tmp_path / "log", wide, wide, wide))] == [2, 1]


def test_columns_of_any_kind_are_read_as_the_same_rows_in_json(tmp_path: Path) -> None:
    rows = [
        {"candidates": [{"id": 1, "features": {"tags": ["p", None], "new": True}}], "reward": 1.0, "t": None},
        {"candidates": [{"id": 2, "features": None, "reward": 0.5}], "t": 7},
        {"candidates": [{"id": 3, "features": {"tags": None, "new": False}}], "reward": 0.0, "t": 2**37},
    ]
    table = pa.Table.from_pylist([*rows[:1], *rows * 100])
    table = table.append_column("user", pa.array(["u1", None, "u1", "u2"] + ["u1"] * 297).dictionary_encode())
    parquet.write_table(table.slice(1), tmp_path / "log.parquet")
    with pytest.raises(BrokenRow, match=r"log.parquet:1: .*field candidates\[0\].features.tags"):
        list(read(tmp_path / "log.parquet"))
    parquet.write_table(table.slice(2, 2), tmp_path / "log.parquet")
    second, third = read(tmp_path / "log.parquet")
    assert (second.ids, second.outcomes, second.time_s, second.user, second.features) == (["2"], [0.5], 7.0, "u1", [{}])
    assert (third.ids, third.time_s, third.user, third.features) == (["3"], 2.0**37, "u2", [{"new": False}])


def test_a_number_of_parquet_that_is_not_finite_names_its_row(tmp_path: Path) -> None:
    for broken in ({"reward": float("nan")}, {"reward": 1.0, "context": {"x": float("inf")}}):
        rows = [
            {"candidates": [{"id": "a"}], "reward": 0.0, "context": {"x": 1.0}},
            {"candidates": [{"id": "a"}]} | broken,
        ]
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
        with pytest.raises(BrokenRow, match=r"log.parquet:2: "):
            list(read(tmp_path / "log.parquet"))


@pytest.mark.parametrize("rewards", [[0.0, float("nan")], [float("nan"), 0.0], [0.0, 1e39], ["1", 0.0], [True, None]])
def test_a_wrong_reward_among_the_candidates_is_named(rewards: list[Any]) -> None:
    row = {"candidates": [{"id": str(at), "reward": reward} for at, reward in enumerate(rewards)]}
    with pytest.raises(BrokenRow, match="reward"):
        parse(row, 1, "log:1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user,item,label\n", "one object a line"),
        ("[\n", "one object a line"),
        ('{"candidates": [{"id": "a"}], "reward": 1} {}\n', "more follows"),
        ('{"candidates": [{"id": "a"}], "reward": NaN}\n', "NaN is no number"),
        ('{"candidates": [{"id": "\\ud800"}], "reward": 1}\n', "surrogate"),
        ('{"candidates": [{"id": "a"}], "reward": 0, "reward": 1}\n', "write each once (got 'reward')"),
        ('{"candidates": [{"id": "a", "id": "b"}], "reward": 1}\n', "write each once (got 'id')"),
        ('{"candidates": ' + "[" * 100_000 + "\n", "no JSON"),
        ('{"candidates": [{"id": "a"}], "label": 1}\n', "reward"),
    ],
)
def test_what_strangers_hand_in_is_told_what_a_log_is(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BrokenRow, match=r"log\.jsonl:1: ") as refused:
        list(read(lines(tmp_path / "log.jsonl", text)))
    assert says in str(refused.value)


def test_other_columns_and_folders_are_named(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"user_id": ["u1"], "label": [1]}), tmp_path / "log.parquet")
    with pytest.raises(InvalidArgument, match="no column candidates, but user_id, label"):
        list(read(tmp_path / "log.parquet"))
    with pytest.raises(InvalidArgument, match="is a folder"):
        read(tmp_path)


def test_a_byte_order_mark_is_no_fault_and_big_integers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'\xef\xbb\xbf{"candidates": [{"id": %d}], "reward": %d, "t": 0}\n' % (10**30, 10**12))
    (row,) = read(path)
    assert (row.ids, row.reward) == ([str(10**30)], 1e12)


@pytest.mark.parametrize("kind", ["plain", "gz", "parquet"])
def test_the_share_that_was_read_grows_up_to_all(tmp_path: Path, kind: str) -> None:
    path = lines(tmp_path / "log", *[{**ROW, "user": str(content_key("", str(n)))} for n in range(20 * ROWS_AT_ONCE)])
    if kind == "gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist([ROW] * 20 * ROWS_AT_ONCE), path)
    shares: list[float] = []
    assert sum(len(batch) for batch in batches(path, shares.append)) == 20 * ROWS_AT_ONCE
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.8
    assert shares[-1] == 1.0
