"""Files that commands write: whole or not at all, and never in the place of a pipe or a device."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from banditmesh.output import check_output, output
from banditmesh.runtime.errors import InvalidArgument


def test_a_file_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("before")
    with output(path, "OUT") as file:
        file.write(b"after")
        file.flush()
        assert path.read_text() == "before"
    assert path.read_text() == "after"


def test_what_ends_badly_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), output(path, "OUT"):
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_new_file_is_as_readable_as_any(tmp_path: Path) -> None:
    with output(tmp_path / "new", "OUT") as file:
        file.write(b"a")
    (tmp_path / "usual").touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_file_that_was_private_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch(0o600)
    with output(path, "OUT") as file:
        file.write(b"a")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("there")
    with output(tmp_path / "link", "OUT") as file:
        file.write(b"a")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "a"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with output(path, "OUT") as file:
        file.write(b"row")
    reader.join()
    assert read == [b"row"]
    assert path.is_fifo()


def test_a_full_disk_is_told_with_the_name_of_the_file() -> None:
    with pytest.raises(OSError, match="/dev/full") as told, output(Path("/dev/full"), "OUT") as file:
        file.write(b"row")
    assert told.value.errno == errno.ENOSPC
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    ("path", "why"), [("", "is a folder"), ("none/out", "the folder does not exist"), ("file/out", "does not exist")]
)
def test_what_cannot_be_written_is_refused_by_name(tmp_path: Path, path: str, why: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match=why) as refused:
        check_output(tmp_path / path, "plot")
    assert refused.value.field == "plot"


def test_a_folder_that_takes_no_new_file_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"written|write to"), output(Path("/proc/out"), "OUT"):
        pass
