"""Ctrl-C and SIGTERM at any moment of a command or a service, as processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT, banditmesh, environment

AT_AN_IMPORT = """
import importlib.abc, os, runpy, sys

_, at, number, module, *words = sys.argv

class SignalAt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == at:
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, SignalAt())
sys.argv = [module, *words]
runpy.run_module(module, run_name="__main__")
print("it went on")
"""

AT_A_CALL = """
import os, runpy, sys

_, at, number, module, *words = sys.argv

def signal_once(frame, event, _):
    if event == "call" and frame.f_code.co_name == at:
        sys.setprofile(None)
        os.kill(os.getpid(), int(number))

sys.argv = [module, *words]
sys.setprofile(signal_once)
runpy.run_module(module, run_name="__main__")
print("it went on")
"""


def signalled_at_the_import_of(name: str, number: signal.Signals, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", AT_AN_IMPORT, name, str(int(number)), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment(), cwd=ROOT)


@pytest.mark.parametrize(
    ("name", "number", "words"),
    [
        ("typer", signal.SIGINT, ["policies"]),
        ("banditmesh.cli.convert", signal.SIGTERM, ["policies"]),
        ("numpy", signal.SIGINT, ["replay", "log.jsonl"]),
        ("aiokafka", signal.SIGINT, ["dead-letters", "--kafka", "127.0.0.1:1"]),
    ],
)
def test_a_signal_while_a_command_imports_ends_it_without_a_word(
    name: str, number: signal.Signals, words: list[str]
) -> None:
    ended = signalled_at_the_import_of(name, number, "banditmesh.cli", *words)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", "")


@pytest.mark.parametrize("at", ["get_params_from_function", "_flushed"])  # typer's, and ours when all is done
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_or_after_a_command_does_its_work_ends_it_without_a_traceback(
    at: str, number: signal.Signals
) -> None:
    argv = [sys.executable, "-c", AT_A_CALL, at, str(int(number)), "banditmesh.cli", "archive", "--help"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment(), cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (128 + number, "")


@pytest.mark.parametrize("service", ["crs_engine", "importer", "joiner", "learner", "tracker"])
def test_a_service_that_is_asked_to_stop_while_it_imports_stops_as_asked(service: str) -> None:
    ended = signalled_at_the_import_of("pydantic", signal.SIGINT, f"services.{service}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_signal_while_a_store_hangs_is_not_answered_when_the_store_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = f"s3://b/models/home/linear-1a2b3c4d?endpoint=http://127.0.0.1:{server.getsockname()[1]}"
        argv = [sys.executable, "-m", "banditmesh.cli", "inspect", "verify", store]
        credentials = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        env = environment() | credentials
        command = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT)
        server.settimeout(60)
        connection, _ = server.accept()
        with connection:
            command.send_signal(signal.SIGINT)
            _, said = command.communicate(timeout=60)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # a thread that was waited for would have tried again
            server.accept()
    assert (command.returncode, said) == (130, "banditmesh: interrupted\n")


def test_a_store_that_hangs_is_not_waited_for_when_the_command_has_given_it_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = f"s3://bucket?endpoint=http://127.0.0.1:{server.getsockname()[1]}"
        env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        ended = banditmesh("up", "--dir", tmp_path / "mesh", "--store", store, env=env)
        server.settimeout(60)
        server.accept()[0].close()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # a thread that was waited for would have tried again
            server.accept()
    assert ended.returncode == 1
    assert f"banditmesh: --store {store}: nothing answers there within 5 s" in ended.stderr


FAILS_WITH_A_THREAD = """
import sys, threading
import banditmesh.cli.commands
from banditmesh.command import main

def run():
    threading.Thread(target=threading.Event().wait).start()
    print("what was found")
    sys.exit(3)

banditmesh.cli.commands.main = run
main()
"""


def test_what_was_said_before_a_failure_is_there_though_a_thread_is_not_waited_for() -> None:
    argv = [sys.executable, "-c", FAILS_WITH_A_THREAD]
    ended = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, env=environment({"PYTHONUNBUFFERED": ""}), cwd=ROOT
    )
    assert (ended.returncode, ended.stdout) == (3, "what was found\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_the_work_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    log, out = tmp_path / "log.vw", tmp_path / "out" / "log.jsonl"
    os.mkfifo(log)
    out.parent.mkdir()
    argv = [sys.executable, "-m", "banditmesh.cli", "convert", "--from", "vw-text", str(log), str(out)]
    command = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
    with log.open("w"):  # opened as soon as the other end is
        command.send_signal(number)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 128 + number
    assert said == "banditmesh: interrupted\n"
    assert not list(out.parent.iterdir())
