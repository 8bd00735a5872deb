"""The command line in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from banditmesh.cli.commands import main
from tests.support.logs import logging_as_it_was


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ended]]:
    """Run ``banditmesh WORD…`` to its end, with room for wide tables."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("BANDITMESH_TOKEN_KEYS", raising=False)

    def run(*words: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["banditmesh", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ended(int(ended.value.code or 0), out, err)

    with logging_as_it_was():
        yield run
