"""The folder of ``banditmesh up``: whose it is, and what is said when it cannot be used."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from banditmesh.local import ports
from banditmesh.local.claim import Claim, usable
from banditmesh.local.process import DidNotStart
from banditmesh.local.stack import FIRST_METRICS_PORT, FIRST_PORT, SERVICES
from banditmesh.runtime.addresses import shown
from tests.support.command import banditmesh


def test_nobody_else_may_look_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir(mode=0o755)
    Claim(folder).release()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = banditmesh("up", "--dir", tmp_path / "file" / "mesh")
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert f"{tmp_path / 'file' / 'mesh'} cannot be used: Not a directory" in line
    assert "choose another --dir" in line


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_a_read_only_or_full_disk_is_one_line(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(DidNotStart, match=f"{os.strerror(number)} .*token-keys.*choose another --dir"),
        usable(tmp_path),
    ):
        raise OSError(number, os.strerror(number), str(tmp_path / "token-keys"))


def test_another_error_is_not_taken_for_one_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="refused"), usable(tmp_path):
        raise OSError(errno.ECONNREFUSED, "refused")


def test_a_password_is_not_echoed(tmp_path: Path) -> None:
    where = f"redis://mesh:hunter2@127.0.0.1:{ports.free(1)[0]}"
    run = banditmesh("up", "--dir", tmp_path / "mesh", "--redis", where)
    assert run.returncode == 1
    assert "does not answer" in run.stderr
    assert "hunter2" not in run.stdout + run.stderr
    assert shown("redis://mesh:h@unter2@h:1/0") == "redis://***@h:1/0"
    assert shown("a:1,b:2") == "a:1,b:2"


def test_no_default_port_lies_where_the_kernel_takes_ports_for_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(FIRST_PORT, FIRST_METRICS_PORT) + len(SERVICES) < lowest


@pytest.mark.parametrize(
    "said", ["cannot serve gRPC on 127.0.0.1:7051: the port is taken, or", "bind: Address already in use"]
)
def test_a_port_that_somebody_took_in_the_meantime_is_recognised(said: str) -> None:
    assert DidNotStart("tracker", "it exited with code 2", log_end=said).port_taken
