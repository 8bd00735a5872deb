from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.reader import CANDIDATES_AT_ONCE, batches, read
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
    assert row.candidates[0].features["x0"][0][1] == 0.12


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
