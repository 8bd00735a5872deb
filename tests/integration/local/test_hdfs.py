"""The local HDFS."""

from __future__ import annotations

import os
from pathlib import Path

import hdfs_native
import pytest

from banditmesh.local.hdfs import Hdfs
from banditmesh.local.process import DidNotStart


def test_it_keeps_a_file_over_a_restart_and_stops_without_a_trace(tmp_path: Path) -> None:
    with Hdfs(tmp_path) as hdfs:
        with hdfs_native.Client(hdfs.url).create("/mappings/weather.csv") as file:
            file.write(b"user,content\n")
        hdfs.stop()
        hdfs.start()
        assert hdfs_native.Client(hdfs.url).read("/mappings/weather.csv").read() == b"user,content\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(hdfs.pid, 0)


def test_a_port_that_was_asked_for_and_is_taken_is_named(hdfs: Hdfs, tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match=f"address already in use: 127.0.0.1:{hdfs.ports[0]}"):
        Hdfs(tmp_path, ports_wanted=hdfs.ports).start()
