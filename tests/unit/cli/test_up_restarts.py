"""``banditmesh up`` while it runs: what ends is started again, and what does so too often ends it all."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from banditmesh.cli import up
from banditmesh.local.process import DidNotStart
from banditmesh.local.stack import SERVICES, Ended


@dataclass
class FakeMesh:
    """Parts end as the rounds say; one that ends while its port is taken is elsewhere afterwards."""

    rounds: list[list[str]]
    moves: bool = False
    addresses: dict[str, str] = field(default_factory=lambda: dict.fromkeys(SERVICES, "127.0.0.1:7051"))
    progress: Callable[[str, str], None] = lambda part, what: None

    def restart_ended(self) -> list[Ended]:
        if not self.rounds:
            raise KeyboardInterrupt
        ended = self.rounds.pop(0)
        if self.moves:
            self.addresses = self.addresses | dict.fromkeys(ended, "127.0.0.1:12345")
        return [Ended(name, "SIGKILL", Path("log"), "") for name in ended]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "_LOOK_EVERY_S", 0.0)


def watched(mesh: FakeMesh) -> str:
    said = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        up._watch(Console(file=said, width=200), mesh)  # type: ignore[arg-type]
    return said.getvalue()


def test_five_parts_that_end_once_are_no_part_that_ends_five_times() -> None:
    assert watched(FakeMesh([list(SERVICES)])).count("its log") == len(SERVICES)


def test_a_part_that_ends_five_times_ends_it_all() -> None:
    with pytest.raises(DidNotStart, match="tracker did not start: it ended 5 times"):
        watched(FakeMesh([["tracker"]] * 5))


def test_where_a_part_is_now_is_said_when_it_is_elsewhere() -> None:
    assert "tracker: somebody else has its port: it is at 127.0.0.1:12345" in watched(
        FakeMesh([["tracker"]], moves=True)
    )
    assert "somebody else" not in watched(FakeMesh([["tracker"]]))
