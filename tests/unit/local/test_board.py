"""The lines that ``up`` and ``demo`` show while parts start and stop."""

from __future__ import annotations

import io

from rich.console import Console

from banditmesh.local.board import Board


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_each_change_is_a_plain_line() -> None:
    plain = console(terminal=False)
    with Board(plain) as board:
        board.tell("kafka", "starting")
        board.tell("valkey", "starting")
        board.tell("kafka", "ready after 2.0 s")
    assert written(plain) == "kafka: starting\nvalkey: starting\nkafka: ready after 2.0 s\n"


def test_on_a_terminal_each_part_has_one_line() -> None:
    board = Board(console(terminal=True))
    for what in ("starting", "ready after 2.0 s"):
        board.tell("kafka", what)
    board.tell("valkey", "did not start")
    shown = console(terminal=False)
    shown.print(board)
    assert [line.split() for line in written(shown).splitlines()] == [
        ["✔", "kafka", "ready", "after", "2.0", "s"],
        ["✘", "valkey", "did", "not", "start"],
    ]


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    plain = console(terminal=False)
    Board(plain).tell("kafka", "said [red]no[/]")
    assert written(plain) == "kafka: said [red]no[/]\n"
