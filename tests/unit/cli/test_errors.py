"""What every command has in common: a mistake is a message with an exit code, never a traceback."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from banditmesh.cli.commands import app
from banditmesh.cli.examples import EXAMPLES
from banditmesh.local import ports

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


S3 = "s3://bucket?endpoint=http://AWAY"
SINCE = ("--from", "2026-11-01")
EVALUATE = ("evaluate", "--policy", "linucb", "--placement", "home", *SINCE, "--store")


@pytest.mark.parametrize(
    ("words", "named", "setting"),
    [
        (("dead-letters", "--kafka", "AWAY"), "Kafka at AWAY cannot be reached: connection", "BANDITMESH_KAFKA"),
        (("export", "examples", "o.jsonl", *SINCE, "--topic"), "Kafka at AWAY cannot be reached", "BANDITMESH_KAFKA"),
        (("export", "examples", "o.jsonl", *SINCE, "--store", S3), f"{S3}&", "BANDITMESH_STORE"),
        (("archive", "compact", "--store", S3), f"{S3}&", "BANDITMESH_STORE"),
        (("inspect", "verify", f"{S3}/models/home/m/3"), "http://AWAY", "BANDITMESH_STORE"),
        ((*EVALUATE, S3), f"{S3}&", "BANDITMESH_STORE"),
        (("experiment", "home", "--learner", "AWAY"), "the learner at AWAY does not answer", "BANDITMESH_LEARNER"),
        (("up", "--dir", "d", "--kafka", "AWAY"), "--kafka AWAY: Kafka cannot be reached", "--kafka"),
        (("up", "--dir", "d", "--redis", "redis://AWAY"), "Redis at redis://AWAY does not answer", "--redis"),
        (("archive", "compact", "--store", "file://HERE/none/x"), "there is no folder HERE/none/x", "BANDITMESH_STORE"),
        ((*EVALUATE, "file://HERE/none/x"), "there is no folder HERE/none/x", "BANDITMESH_STORE"),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, tuple) else None,
)
def test_a_server_that_is_away_is_one_line_with_address_and_setting(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], named: str, setting: str
) -> None:
    monkeypatch.chdir(tmp_path)
    away = f"127.0.0.1:{ports.free(1)[0]}"
    for name, value in {"BANDITMESH_KAFKA": away, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    Path("mesh.yaml").write_text("services: {s: {logics: [a]}}\nplacements: {home: {sources: [s/a]}}\n")
    ended = run(*(word.replace("AWAY", away).replace("HERE", str(tmp_path)) for word in words))
    assert ended.code == 1
    (said,) = ended.err.splitlines()
    assert named.replace("AWAY", away).replace("HERE", str(tmp_path)) in said
    assert setting in said
    assert not Path("none").exists()


def test_a_command_introduces_itself_in_one_line() -> None:
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    for command in (each for group in groups for each in group.registered_commands):
        introduction = inspect.getdoc(command.callback) or ""
        assert introduction
        assert "\n" not in introduction.split("\n\n")[0], command.callback


@pytest.mark.parametrize(
    "words",
    [
        ("torture", "--report", "none/report.md"),
        ("demo", "--plot", "none/plot.png"),
        ("demo-cinema", "--json", "none/found.json"),
        ("demo-news", "--plot", "none/plot.png"),
        ("convert", "--from", "vw-text", "log", "none/out.jsonl"),
        ("export", "examples", "none/out.jsonl", "--from", "7d", "--store", "file://HERE"),
    ],
    ids=lambda words: words[0],
)
def test_what_cannot_be_written_in_the_end_is_refused_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log").write_text("1:0:0.5 | a\n")
    ended = run(*(word.replace("HERE", str(tmp_path)) for word in words))
    assert ended.code == 2
    assert "the folder does not exist" in ended.err
    assert "none/" in ended.err


def test_a_file_name_is_shown_as_it_is(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"candidates": [{"id": "a"}], "reward": float(n % 2)} for n in range(4)]
    Path("log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    odd = "s[bold]"
    ended = run("fit", "log.jsonl", "--policy", "linear", "--epochs", "1", "--save", odd)
    assert ended.code == 0
    assert Path(odd).absolute().as_uri() in ended.out
    Path("policy[/bold].yaml").parent.mkdir()
    Path("policy[/bold].yaml").write_text("policy: {linear: {}}\n")
    ended = run("replay", "log.jsonl", "--policy", "policy[/bold].yaml", "--method", "rejection", "--uniform")
    assert ended.code == 0
    assert "policy[/bold].yaml" in ended.out


def test_a_file_that_the_system_refuses_is_one_line(run: Run, tmp_path: Path) -> None:
    ended = run("topics", tmp_path)
    assert ended.code in (1, 2)
    assert str(tmp_path) in ended.err


def test_help_lists_every_command(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    for name in ("up", "demo", "check", "policies", "inspect", "dead-letters"):
        assert name in ended.out


def of_commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield from of_commands(command, (*words, name)) if hasattr(command, "commands") else [(*words, name)]


@pytest.mark.parametrize("words", list(of_commands(typer.main.get_command(app))), ids=" ".join)
def test_a_command_helps(run: Run, words: tuple[str, ...]) -> None:
    ended = run(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "--help" in ended.out


def test_every_example_is_a_command_line_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("contents.jsonl", "mesh.yaml"):
        Path(name).touch()
    group: Any = typer.main.get_command(app)
    for called, example in EXAMPLES.items():
        command = group
        for word in called.split():
            command = command.commands[word]
        assert command.epilog.startswith(f"Such as: banditmesh {called}")
        command.make_context(called, example.split())  # raises what a user would see


def test_help_says_what_every_option_is_when_it_is_absent() -> None:
    group: Any = typer.main.get_command(app)
    for called in EXAMPLES:
        command = group
        for word in called.split():
            command = command.commands[word]
        for each in command.params:
            if not each.required and not getattr(each, "is_flag", False) and each.default in (None, (), []):
                assert "bsent" in each.help, f"{called}: {each.name}"


def test_what_stands_in_brackets_is_not_taken_for_markup(run: Run) -> None:
    for words in (["inspect"], ["replay"]):
        assert "models/PLACEMENT/MODEL[/VERSION]" in "".join(run(*words, "--help").out.replace("│", " ").split())


def test_ratings_that_cannot_be_read_end_the_demo_with_1(run: Run, tmp_path: Path) -> None:
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("this is no table\n")
    ended = run("demo", "--ratings", ratings, "--dir", tmp_path / "mesh")
    assert ended.code == 1
    assert "ratings.csv" in ended.out + ended.err
