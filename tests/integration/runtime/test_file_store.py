"""What a folder as a store must survive."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from banditmesh.runtime.errors import FailedPrecondition, NotFound, Unavailable
from banditmesh.runtime.store import open_store
from banditmesh.runtime.store.file import ABANDONED_AFTER_S

UPLOAD = """
import asyncio, sys
from pathlib import Path
from banditmesh.runtime.store import open_store
asyncio.run(open_store(sys.argv[1]).upload_new("key", Path(sys.argv[2])))
"""


async def test_a_writer_killed_in_the_middle_leaves_no_object(tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", UPLOAD, url, str(pipe))
    with await asyncio.to_thread(pipe.open, "wb") as source:  # once the writer reads; it reads until we close
        await asyncio.to_thread(source.write, bytes(2_000_000))
        await asyncio.to_thread(source.flush)
        writer.send_signal(signal.SIGKILL)
        assert await writer.wait() == -signal.SIGKILL
    store = open_store(url)
    with pytest.raises(NotFound):
        await store.get("key")
    assert [key async for key in store.list()] == []
    assert list((tmp_path / "store" / ".partial").iterdir()), "the writer was killed before it wrote"
    await store.put_new("key", b"whole")
    assert (await store.get("key")).body == b"whole"


async def test_what_a_killed_writer_left_is_swept_a_day_later(tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    open_store(url)
    partial = tmp_path / "store" / ".partial"
    (partial / "fresh").write_bytes(b"")
    (partial / "old").write_bytes(b"")
    long_ago_s = (partial / "old").stat().st_mtime - ABANDONED_AFTER_S - 1
    os.utime(partial / "old", (long_ago_s, long_ago_s))
    open_store(url)
    assert [path.name for path in partial.iterdir()] == ["fresh"]


async def test_what_a_neighbour_has_finished_meanwhile_does_not_stop_a_sweep(tmp_path: Path) -> None:
    url = tmp_path.as_uri()
    open_store(url)
    (tmp_path / ".partial" / "finished").symlink_to("a name that is gone when it is looked at")
    assert await open_store(url).put_new("key", b"")


async def test_a_folder_that_cannot_be_made_is_a_failed_precondition(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FailedPrecondition, match="folder cannot be used"):
        open_store((tmp_path / "file" / "store").as_uri())


async def test_a_key_below_another_object_is_a_failed_precondition(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    await store.put_new("a", b"")
    with pytest.raises(FailedPrecondition):
        await store.put_new("a/b", b"")


async def test_a_folder_that_went_away_is_unavailable(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        await store.ping()


async def test_a_local_file_that_is_missing_is_the_callers_own_error(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    with pytest.raises(FileNotFoundError):
        await store.upload_new("key", tmp_path / "none")
