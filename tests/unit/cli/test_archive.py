"""``banditmesh archive`` and ``banditmesh export``, on a store in a folder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from banditmesh.archive.layout import Folder
from banditmesh.archive.pseudonym import pseudonyms
from banditmesh.cli import app
from banditmesh.decisions import encoder
from banditmesh.decisions.reader import LogFile
from banditmesh.decisions.view import View
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument
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

    assert done["examples"] == {"folders": 1, "files_before": 2, "files_after": 1, "rows": 9}
    (listed,) = run(
        "archive", "files", "home", "--store", store, "--from", "2026-11-29", "--to", "2026-11-30"
    ).stdout.split()
    assert Path(listed.removeprefix("file://")).exists()


def test_forget_finds_the_user_by_the_plain_id_and_by_the_pseudonym(tmp_path: Path) -> None:
    made = store_in(tmp_path / "store")
    asyncio.run(put(made, HOME, rows(0, 5)))
    keyed = rows(5, 9).set_column(1, "user", pa.array([pseudonyms(KEY)("u3")] * 4))
    asyncio.run(put(made, HOME, keyed))

    done = run("archive", "forget", "u3", "--store", made.location, "--key", KEY, "--json")

    assert json.loads(done.stdout) == {"files": 2, "rows": 5}


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
