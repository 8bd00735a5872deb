"""Files on an HDFS whose nodes go away, or hang, while they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import pytest
from pyarrow import parquet

from services.importer.failure import ImportFailed
from services.importer.sources.hdfs_files import HdfsFiles

HOST = "namenode:8020"


class File:
    """A file of a client: each read brings bytes, raises an error, or waits for an event."""

    def __init__(self, *reads: bytes | BaseException | threading.Event) -> None:
        self._reads = list(reads)
        self.closed = False

    def read(self, nbytes: int) -> bytes:
        following = self._reads.pop(0)
        if isinstance(following, threading.Event):
            following.wait()
            return b""
        if isinstance(following, BaseException):
            raise following
        return following

    def close(self) -> None:
        self.closed = True


class FileSystem:
    """As much of pyarrow's as is used."""

    def __init__(self, file: File) -> None:
        self._file = file

    def open_input_file(self, name: str) -> File:
        return self._file


@pytest.fixture
def hangs() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def opened(file: File, read_s: float = 30.0) -> pa.NativeFile:
    return HdfsFiles(cast(Any, FileSystem(file)), HOST, read_s=read_s).open("/exports/m.csv")


def test_a_datanode_that_goes_away_in_the_middle_of_a_file_is_an_unavailable_source() -> None:
    gone = RuntimeError("DataTransferError(All DataNodes failed: " + "[…]" * 500)
    with opened(File(b"user_id,contents\n", gone)) as file:
        assert file.read(100) == b"user_id,contents\n"
        with pytest.raises(ImportFailed) as failed:
            file.read(100)

    failure = failed.value.failure
    assert (failure.reason, failure.file) == ("source_unavailable", f"hdfs://{HOST}")
    assert failure.message.startswith(f"hdfs://{HOST} cannot be read: DataTransferError(All DataNodes failed")
    assert len(failure.message) < 300


def test_a_datanode_that_hangs_is_given_up(hangs: threading.Event) -> None:
    with opened(File(hangs), read_s=0.0) as file, pytest.raises(ImportFailed) as failed:
        file.read(100)

    waiting = [each for each in threading.enumerate() if each.name == f"hdfs://{HOST}"]
    assert [each.daemon for each in waiting] == [True]  # the process does not wait for it
    assert failed.value.failure.reason == "source_unavailable"
    assert "a DataNode did not send within 0 s" in failed.value.failure.message


def test_other_errors_stay_what_they_are() -> None:
    with opened(File(FileNotFoundError("/exports/m.csv"))) as file, pytest.raises(FileNotFoundError):
        file.read(100)


def test_what_is_read_from_its_end_is_read_there() -> None:
    """As Parquet is: its footer is looked for from the end."""
    body = pa.BufferOutputStream()
    parquet.write_table(pa.table({"user_id": ["u1"]}), body)
    file = cast(Any, pa.BufferReader(body.getvalue()))
    with opened(file) as opened_file:
        assert parquet.read_table(opened_file).column("user_id").to_pylist() == ["u1"]
