"""A child process: logged, waited for, stopped, and never left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from banditmesh.local.process import Child, DidNotStart

READY = "print('listening', flush=True)"
WAIT = "signal.pause()"
PARENT = """
import sys, pathlib
from banditmesh.local.process import Child
program = "import signal; print('listening', flush=True); signal.pause()"
child = Child("child", [sys.executable, "-c", program], log=pathlib.Path(sys.argv[1]))
child.wait_until_ready(lambda: "listening" in child.log_end(), timeout_s=20)
print(child.pid, flush=True)
sys.stdin.read()
"""


def python(*statements: str) -> list[str]:
    return [sys.executable, "-c", "; ".join(["import signal", *statements])]


def ends_within(pidfd: int, seconds: float) -> bool:
    """Whether the process behind a pidfd ends in time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def is_gone(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


def started(argv: list[str], log: Path) -> Child:
    """A child that has said that it listens."""
    child = Child("child", argv, log=log)
    child.wait_until_ready(lambda: "listening" in child.log_end(), timeout_s=20)
    return child


def test_a_child_that_exits_before_it_is_ready_did_not_start_and_its_last_words_are_told(tmp_path: Path) -> None:
    child = Child("oven", python("print('gas is off')", "raise SystemExit(7)"), log=tmp_path / "log")
    with pytest.raises(DidNotStart) as caught:
        child.wait_until_ready(lambda: False, timeout_s=20)
    assert str(caught.value) == (
        f"oven did not start: it exited with code 7\nThe end of {tmp_path / 'log'}:\n  | gas is off"
    )


def test_a_child_that_a_signal_ends_did_not_start_and_the_signal_is_named(tmp_path: Path) -> None:
    child = Child("oven", python("signal.raise_signal(signal.SIGABRT)"), log=tmp_path / "log")
    with pytest.raises(DidNotStart, match="SIGABRT ended it"):
        child.wait_until_ready(lambda: False, timeout_s=20)


def test_a_child_that_is_never_ready_is_killed_at_the_deadline(tmp_path: Path) -> None:
    child = Child("oven", python(WAIT), log=tmp_path / "log")
    with pytest.raises(DidNotStart, match=r"not ready within 0.1 s"):
        child.wait_until_ready(lambda: False, timeout_s=0.1)
    assert is_gone(child.pid)


def test_a_program_that_is_missing_did_not_start(tmp_path: Path) -> None:
    child = Child("oven", [tmp_path / "no-such-program"], log=tmp_path / "log")
    with pytest.raises(DidNotStart, match=r"cannot run .*no-such-program: No such file"):
        child.wait_until_ready(lambda: False, timeout_s=20)


def test_a_child_that_did_not_start_on_a_full_disk_could_not_log_why_so_the_disk_is_named(tmp_path: Path) -> None:
    child = Child("oven", python("raise SystemExit(7)"), log=tmp_path / "log")
    child.least_room = 1 << 62
    with pytest.raises(DidNotStart, match=rf"No space left on device: \d+ bytes are free under {tmp_path}"):
        child.wait_until_ready(lambda: False, timeout_s=20)


def test_only_the_lines_of_this_start_are_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier run\n")
    child = Child("oven", python("print('of this run')"), log=tmp_path / "log")
    with pytest.raises(DidNotStart) as caught:
        child.wait_until_ready(lambda: False, timeout_s=20)
    assert caught.value.log_end == "of this run"


def test_what_was_said_long_ago_was_said_and_what_another_run_said_was_not(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier run\n")
    child = Child("oven", python("print('at first')", "print('and on\\n' * 20_000)", READY, WAIT), log=tmp_path / "log")
    child.wait_until_ready(lambda: "listening" in child.log_end(), timeout_s=20)
    assert "at first" not in child.log_end()
    assert child.has_logged("at first")
    assert not child.has_logged("of an earlier run")
    child.kill()


def test_stop_lets_a_child_end_by_itself(tmp_path: Path) -> None:
    child = started(python("signal.signal(signal.SIGTERM, lambda *_: exit(3))", READY, WAIT), tmp_path / "log")
    assert child.stop(grace_s=20) == 3
    assert is_gone(child.pid)


def test_stop_kills_a_child_that_does_not_listen(tmp_path: Path) -> None:
    child = started(python("signal.signal(signal.SIGTERM, signal.SIG_IGN)", READY, WAIT), tmp_path / "log")
    assert child.stop(grace_s=0.1) == -signal.SIGKILL
    assert is_gone(child.pid)


def test_a_child_that_another_thread_has_just_seen_end_is_not_signalled(tmp_path: Path) -> None:
    child = started(python(READY, WAIT), tmp_path / "log")
    os.killpg(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    with child._popen._waitpid_lock:  # type: ignore[attr-defined] # as a thread that is in `wait` holds it
        child._signal(signal.SIGTERM)
    assert child.returncode is not None


def test_kill_ends_the_children_of_the_child_too(tmp_path: Path) -> None:
    child = started(["sh", "-c", "sleep 600 & echo listening $!; wait"], tmp_path / "log")
    grandchild = os.pidfd_open(int(child.log_end().split()[-1]))
    child.kill()
    assert ends_within(grandchild, 20)
    os.close(grandchild)


def test_a_child_is_not_in_our_process_group_so_that_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    child = started(python(READY, WAIT), tmp_path / "log")
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    child.kill()


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    children: list[Child] = []
    thread = threading.Thread(target=lambda: children.append(started(python(READY, WAIT), tmp_path / "log")))
    thread.start()
    thread.join()
    pidfd = os.pidfd_open(children[0].pid)
    assert not ends_within(pidfd, 0.3)
    children[0].kill()
    os.close(pidfd)


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert ends_within(child, 20)
    os.close(child)
