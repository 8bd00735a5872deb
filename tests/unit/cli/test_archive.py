"""``banditmesh archive`` and ``banditmesh export``, on a store in a folder."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from banditmesh.archive.layout import Folder
from banditmesh.archive.pseudonym import pseudonyms
from banditmesh.archive.schema import VERSION_KEY
from banditmesh.cli.commands import app
from banditmesh.decisions import encoder
from banditmesh.decisions.reader import LogFile
from banditmesh.decisions.view import View
from banditmesh.runtime.errors import DataLoss, FailedPrecondition, InvalidArgument
from banditmesh.runtime.store.file import FileStore
from tests.support.archive import NOON, put, rows, store_in

HOME = Folder("examples", "home", NOON)
KEY = "ab" * 16


@pytest.fixture
async def store(tmp_path: Path) -> str:
    """The URL of a store with two small files of an hour."""
    store = store_in(tmp_path / "store")
    await put(store, HOME, rows(0, 5))
    await put(store, HOME, rows(5, 9))
    return store.location


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), catch_exceptions=True)


def test_compact_makes_one_file_and_files_lists_it(store: str, tmp_path: Path) -> None:
    assert (
        len(
            run(
                "archive", "files", "home", "--store", store, "--from", "2026-11-29", "--to", "2026-11-30"
            ).stdout.split()
        )
        == 2
    )

    done = json.loads(run("archive", "compact", "--store", store, "--settled-after", "0", "--json").stdout)

    counts = {"folders": 1, "files_before": 2, "files_after": 1, "rows": 9}
    assert done["examples"] == {**counts, "contended": 0, "unsettled": 0, "broken": []}
    (listed,) = run(
        "archive", "files", "home", "--store", store, "--from", "2026-11-29", "--to", "2026-11-30"
    ).stdout.split()
    assert Path(listed.removeprefix("file://")).exists()


def test_what_reads_the_archive_need_not_write_there(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    listed = run("archive", "files", "home", "--store", store, "--from", "2026-11-29", "--to", "2026-11-30")
    assert (listed.exit_code, len(listed.stdout.split())) == (0, 2)


def test_compact_says_how_many_hours_are_too_young(store: str) -> None:
    said = run("archive", "compact", "--store", store, "--settled-after", "36500d").stdout
    assert "examples: 0 files of 0 hours became 0, 0 rows; 1 hours wait: not over, or less than 36500d ago" in said


def test_forget_finds_the_user_by_the_plain_id_and_by_the_pseudonym(tmp_path: Path) -> None:
    made = store_in(tmp_path / "store")
    asyncio.run(put(made, HOME, rows(0, 5)))
    keyed = rows(5, 9).set_column(1, "user", pa.array([pseudonyms(KEY)("u3")] * 4))
    asyncio.run(put(made, HOME, keyed))

    done = run("archive", "forget", "u3", "--store", made.location, "--key", KEY, "--json")

    assert json.loads(done.stdout) == {"files": 2, "rows": 5, "broken": []}


def test_forget_without_the_key_of_the_pseudonyms_says_so(store: str, tmp_path: Path) -> None:
    config = tmp_path / "mesh.yaml"
    config.write_text(
        "services: {a: {logics: [b]}}\nplacements: {home: {sources: [a/b]}}\narchive: {user_ids: keyed, keep: 3650d}\n"
    )
    done = run("archive", "forget", "u3", "--store", store, "--config", str(config))
    assert isinstance(done.exception, FailedPrecondition)
    assert "BANDITMESH_ARCHIVE_KEY" in str(done.exception)
    assert "deleted 0 hours" in run("archive", "expire", "--store", store, "--config", str(config)).stdout
    assert "everything stays" in run("archive", "expire", "--store", store, "--config", _without_keep(config)).stdout


def _without_keep(config: Path) -> str:
    config.write_text(config.read_text().replace(", keep: 3650d", ""))
    return str(config)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_exported_examples_are_a_decision_log_whose_features_are_those_that_were_learned_from(
    suffix: str, store: str, tmp_path: Path
) -> None:
    out = tmp_path / f"log{suffix}"

    done = run("export", "examples", str(out), "--store", store, "--from", "2026-11-29", "--to", "2026-11-30")

    assert done.stdout == f"9 rows in {out}\n"
    found = list(LogFile(out).rows())
    assert [each.user for each in found] == [f"u{number}" for number in range(9)]
    assert [each.reward for each in found] == [1.0, 0.5] * 4 + [1.0]
    batch = encoder.encode(found, View(user=False))
    assert batch.candidates.features.take(batch.shown[3:4]).ids.tolist() == [1, 2, 3]
    assert found[0].time_s == NOON.timestamp()


def test_an_export_of_what_is_not_there_names_what_is(store: str, tmp_path: Path) -> None:
    words = ("export", "examples", str(tmp_path / "log.jsonl"), "--store", store, "--from", "7d")
    assert "there are: home" in str(run(*words, "--placement", "hom").exception)
    wrong = run("export", "examples", str(tmp_path / "log.txt"), "--store", store, "--from", "7d").exception
    assert isinstance(wrong, InvalidArgument)
    assert isinstance(run(*words[:-1], "last week").exception, InvalidArgument)


SPAN = ("--from", "2026-11-29", "--to", "2026-11-30")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("files", "hmoe", *SPAN), "the archive has nothing of it; field PLACEMENT (got 'hmoe'); there are: home"),
        (("files", "home", "--from", "2026-11-30", "--to", "2026-11-29"), "must be before --to; field --from"),
        (("files", "home", "--from", "0001-01-01T00:00:00+09:00"), "must be a time of the years 1970 to 8999"),
        (("files", "home", "--from", "7d", "--to", "9999-12-31T23:59:59Z"), "must be a time of the years 1970 to 8999"),
        (("files", "home", "--from", "soon"), "must be a time like 2026-11-29T14:00:00Z"),
        (("files", "home", *SPAN, "--kind", "rows"), "must be examples or decisions"),
        (("compact", "--settled-after", "99999999d"), "is longer than 36500d"),
        (("expire", "--keep", "-1d"), "is not a duration"),
    ],
    ids=lambda each: each[:2] if isinstance(each, tuple) else None,
)
def test_a_wrong_word_is_refused_in_a_line(words: tuple[str, ...], said: str, store: str) -> None:
    error = run("archive", words[0], "--store", store, *words[1:]).exception
    assert isinstance(error, InvalidArgument)
    assert said in str(error)


def test_an_export_of_a_span_that_ends_before_it_begins_is_refused(store: str, tmp_path: Path) -> None:
    words = ("--store", store, "--from", "2026-11-30", "--to", "2026-11-29")
    error = run("export", "examples", str(tmp_path / "log.jsonl"), *words).exception
    assert isinstance(error, InvalidArgument)
    assert not (tmp_path / "log.jsonl").exists()


def test_a_file_that_is_cut_off_is_named_and_nothing_else_waits_for_it(store: str, tmp_path: Path) -> None:
    made, later = store_in(tmp_path / "store"), Folder("examples", "home", NOON + timedelta(hours=1))
    for first in (9, 12):
        asyncio.run(put(made, later, rows(first, first + 3, at=later.hour)))
    cut = sorted((tmp_path / "store" / HOME.prefix).iterdir())[1]
    cut.write_bytes(cut.read_bytes()[:-100])

    done = run("archive", "compact", "--store", store, "--settled-after", "0", "--json")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert f"{HOME.prefix}{cut.name} cannot be read: its hour is left as it is" in done.stderr
    assert json.loads(done.stdout)["examples"]["files_after"] == 1
    assert cut.exists()

    done = run("archive", "forget", "u2", "--store", store)
    assert (done.exit_code, done.stdout) == (1, "erased 1 rows from 1 files\n")
    assert f"{cut.name} cannot be read: whether the user is in it is not known" in done.stderr

    error = run("export", "examples", str(tmp_path / "log.jsonl"), "--store", store, *SPAN).exception
    assert isinstance(error, DataLoss)
    assert not (tmp_path / "log.jsonl").exists()


def test_files_of_others_beside_ours_stay_as_they_are(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "store" / HOME.prefix
    parquet.write_table(pa.table({"a": [1]}), folder / "theirs.parquet")
    (folder / "notes.txt").write_text("not ours")
    (folder.parents[1] / "dt=2026-99-99" / "hour=99").mkdir(parents=True)
    (folder.parents[1] / "dt=2026-99-99" / "hour=99" / "theirs.parquet").write_text("no day of the calendar")
    before = (folder / "theirs.parquet").read_bytes()

    assert json.loads(run("archive", "forget", "u3", "--store", store, "--json").stdout)["rows"] == 1
    done = json.loads(run("archive", "compact", "--store", store, "--settled-after", "0", "--json").stdout)
    assert done["examples"]["rows"] == 8
    assert run("archive", "expire", "--store", store, "--keep", "0").stdout == "deleted 1 hours, 1 files\n"

    assert (folder / "theirs.parquet").read_bytes() == before
    assert {each.name for each in folder.iterdir()} == {"theirs.parquet", "notes.txt"}


def test_columns_of_a_later_release_outlive_compacting_by_this_one(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "store" / HOME.prefix
    newer = sorted(folder.iterdir())[1]
    table = parquet.read_table(newer)
    table = table.append_column("mood", pa.array(["calm"] * len(table)))
    parquet.write_table(table.replace_schema_metadata({VERSION_KEY: b"2"}), newer)

    run("archive", "compact", "--store", store, "--settled-after", "0")

    (compacted,) = folder.glob("*.parquet")
    found = parquet.read_table(compacted)
    assert found.column("mood").to_pylist() == [None] * 5 + ["calm"] * 4
    assert found.schema.metadata[VERSION_KEY] == b"2"


def test_a_span_of_years_is_listed_in_few_requests(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    keys = FileStore._keys

    def counted(self: FileStore, prefix: str) -> Iterator[str]:
        asked.append(prefix)
        return keys(self, prefix)

    monkeypatch.setattr(FileStore, "_keys", counted)
    listed = run("archive", "files", "home", "--store", store, "--from", "1970-01-01", "--to", "2026-11-30").stdout
    assert len(listed.split()) == 2
    assert len(asked) < 10
