"""Standard output as it may be: a terminal that knows ASCII alone, a full disk, a pipe that nobody reads any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.command import ROOT, banditmesh, environment

POLICIES = [sys.executable, "-m", "banditmesh.cli", "policies"]


def test_a_terminal_that_knows_ascii_alone_is_told_all_the_same() -> None:
    ended = banditmesh("policies", env={"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\\u2013" in ended.stdout  # an en dash


def test_a_file_name_that_is_no_unicode_is_shown(tmp_path: Path) -> None:
    log, out = tmp_path / "log.vw", tmp_path / os.fsdecode(b"\xff.jsonl")
    log.write_text("1:0.5:0.5 | a\n")
    ended = banditmesh("convert", "--from", "vw-text", log, out)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\\udcff.jsonl" in ended.stdout


def test_a_full_disk_under_the_output_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(POLICIES, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["banditmesh: standard output: No space left on device"]


def test_a_pipe_that_nobody_reads_ends_the_command_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        ended = subprocess.run(POLICIES, stdout=pipe, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_closed_output_is_none() -> None:
    closed = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *POLICIES]
    ended = subprocess.run(closed, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (0, "")
