"""A store that goes away while a file is read is not the file's fault, and the job says so."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.importer.failure import ImportFailed, unread
from services.importer.sources.formats import CsvOptions
from services.importer.sources.parquet import ParquetPart
from services.importer.sources.parts import Part
from services.importer.sources.text import read_text

AWAY = "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7, Could not connect to server"


class Mortal(io.BytesIO):
    """A file whose store goes away at the first read after it was told to."""

    dead = False

    def read(self, size: int | None = -1) -> bytes:
        if self.dead:
            raise OSError(AWAY)
        return super().read(size)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(AWAY), "source_unavailable"),
        (OSError("AWS Error SLOW_DOWN during GetObject operation: reduce your rate"), "source_unavailable"),
        (
            OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body."),
            "source_unavailable",
        ),
        (OSError("AWS Error ACCESS_DENIED during GetObject operation: no"), "unreadable_file"),
        (OSError("Truncated compressed stream"), "unreadable_file"),
        (pa.ArrowInvalid("Parquet magic bytes not found in footer"), "unreadable_file"),
    ],
)
def test_only_a_store_that_is_away_makes_a_source_unavailable(error: Exception, reason: str) -> None:
    failure = unread("s3://b/m.csv", "cannot be read", error).failure

    assert (failure.reason, failure.file) == (reason, "s3://b/m.csv")
    assert str(error) in failure.message


def test_a_parquet_file_whose_store_goes_away_is_not_called_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"user_id": ["u1", "u2"]}), path, row_group_size=1)
    file = Mortal(path.read_bytes())
    part = ParquetPart(pa.PythonFile(file, mode="r"), Part("m", "s3://b/m.parquet", "parquet", 0))
    file.dead = True

    with pytest.raises(ImportFailed) as failed:
        list(part.read(after_row=0, batch_rows=1))

    assert failed.value.failure.reason == "source_unavailable"
    assert "s3://b/m.parquet cannot be read now: " in failed.value.failure.message


def test_a_text_whose_store_goes_away_is_not_called_unreadable() -> None:
    file = Mortal()
    file.dead = True
    rows = read_text(
        file, Part("m", "s3://b/m.csv", "csv", 9), lambda names, file: None, CsvOptions(), after_row=0, batch_rows=9
    )

    with pytest.raises(ImportFailed) as failed:
        list(rows)

    assert failed.value.failure.reason == "source_unavailable"
