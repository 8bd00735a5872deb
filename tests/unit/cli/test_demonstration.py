"""What the demos' commands have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from banditmesh.cli.demonstration import demonstrate
from banditmesh.runtime.errors import InvalidArgument


def test_a_report_may_lie_in_the_folder_that_the_demo_makes(tmp_path: Path) -> None:
    ran: list[Path] = []

    def run(folder: Path, _: Console) -> bool:
        ran.append(folder)
        return folder.is_dir()

    demonstrate("demo", tmp_path / "demo", {"plot": tmp_path / "demo" / "report.png", "json": None}, run)
    assert ran == [tmp_path / "demo"]


def test_a_report_that_cannot_be_written_is_refused_before_the_demo(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="the folder does not exist; field plot"):
        demonstrate(
            "demo", tmp_path / "demo", {"plot": tmp_path / "elsewhere" / "report.png"}, lambda *_: pytest.fail("run")
        )
