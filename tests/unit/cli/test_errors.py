"""What every command has in common: a mistake is a message with an exit code, never a traceback."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from banditmesh.cli import app

Run = Callable[..., Any]


@pytest.mark.parametrize(
    "words",
    [
        ["bogus"],
        ["check", "one", "two"],
        ["up", "--config", "there-is-no-such-file.yaml"],
        ["demo", "--visits", "3"],
        ["dead-letters", "--kafka", "no-port"],
        ["dead-letters", "--kafka", "host:1", "--last", "0"],
    ],
)
def test_a_wrong_command_line_ends_with_2(run: Run, words: list[str]) -> None:
    ended = run(*words)
    assert ended.code == 2
    assert ended.err


def test_a_command_introduces_itself_in_one_line() -> None:
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    for command in (each for group in groups for each in group.registered_commands):
        introduction = inspect.getdoc(command.callback) or ""
        assert introduction
        assert "\n" not in introduction.split("\n\n")[0], command.callback


def test_help_lists_every_command(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    for name in ("up", "demo", "check", "policies", "inspect", "dead-letters"):
        assert name in ended.out


def test_ratings_that_cannot_be_read_end_the_demo_with_1(run: Run, tmp_path: Path) -> None:
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("this is no table\n")
    ended = run("demo", "--ratings", ratings, "--dir", tmp_path / "mesh")
    assert ended.code == 1
    assert "ratings.csv" in ended.out + ended.err
