"""The queries of docs/archive.md, as people run them."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pytest

from banditmesh.archive.layout import Folder
from banditmesh.archive.schema import EXAMPLES
from tests.support.archive import NOON, put, rows, store_in

PAGE = (Path(__file__).parents[3] / "docs" / "archive.md").read_text()
VIEW, *QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
TITLES = re.findall(r"^\*\*(\d+)\. (.+?)\*\*$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours of two placements, one file of them with a column less."""
    folder = tmp_path_factory.mktemp("archive")
    asyncio.run(fill(folder))
    return folder


async def fill(folder: Path) -> None:
    store = store_in(folder)
    await put(store, Folder("examples", "home", NOON), rows(0, 600))
    later = rows(600, 900, at=NOON + timedelta(hours=1)).drop_columns(["source_log"])
    await put(store, Folder("examples", "home", NOON + timedelta(hours=1)), later)
    await put(store, Folder("examples", "other place", NOON), rows(0, 100, partition=1))


def test_there_are_ten_questions_and_as_many_queries() -> None:
    assert [int(number) for number, _ in TITLES] == list(range(1, 11))
    assert len(QUERIES) == 10


@pytest.mark.parametrize(("title", "query"), list(zip([title for _, title in TITLES], QUERIES, strict=True)))
def test_a_query_answers(title: str, query: str, archive: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(VIEW.replace("archive/examples", f"{archive}/archive/examples"))
        assert connection.execute(query).fetchall(), title


def test_what_a_variant_earns_is_counted_right(archive: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(VIEW.replace("archive/examples", f"{archive}/archive/examples"))
        found = connection.execute(QUERIES[0]).fetchall()
    assert found == [("home", "a", 900, 0.75, 0.5, 0.0), ("other place", "a", 100, 0.75, 0.5, 0.0)]


def test_pyarrow_reads_the_folder_as_it_is(archive: Path) -> None:
    table = ds.dataset(str(archive / "archive" / "examples"), partitioning="hive").to_table()
    assert len(table) == 1000
    assert {"placement", "dt", "hour"} <= set(table.column_names)


def test_every_column_is_on_the_page_and_none_that_is_not_there() -> None:
    section = PAGE.partition("## Examples")[2].partition("## Ten questions")[0]
    listed = [
        name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert listed == EXAMPLES.names
