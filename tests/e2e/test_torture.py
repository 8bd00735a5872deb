"""A short torture: twenty SIGKILLs under traffic, and nothing is lost, doubled or wrong."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from banditmesh.torture.run import Options, Torture
from banditmesh.torture.scene import Fault, Scene
from banditmesh.torture.world import Shape
from tests.support.command import ROOT
from tests.support.eventually import eventually_true

KILLS = 20
ONE_EACH = {"importer": 1, "crs_engine": 2, "tracker": 1, "joiner": 2, "learner": 1}
"""As few as let a joiner's partitions move and selects go on: each start takes a part of this machine."""


@pytest.mark.timeout(300)
def test_twenty_kills_under_traffic_lose_and_double_nothing(tmp_path: Path) -> None:
    fault = Fault("kills", 1, "plain", twenty_kills)
    options = Options(
        tmp_path, 4.0, seed=1, faults=[fault], per_second=60.0, shape=Shape(replicas=ONE_EACH), mixed=False
    )
    torture = Torture(options, lambda what: None)
    asyncio.run(torture.run())
    report = torture.report
    assert report.good, report.markdown()
    assert report.chronicle.kills >= KILLS
    assert report.impressions > 100
    (result,) = report.rounds
    assert result.learned


async def twenty_kills(scene: Scene) -> None:
    """Twenty SIGKILLs."""
    while scene.chronicle.kills < KILLS:
        await scene.sleep(0.1, 0.8)
        await scene.kill_one()


def test_ctrl_c_writes_the_report_of_what_was_done_and_leaves_no_process(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    argv = [sys.executable, "-m", "banditmesh.cli", "torture", "--only", "kills", "--dir", str(tmp_path / "mesh")]
    run = subprocess.Popen([*argv, "--report", str(report)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    eventually_true((tmp_path / "mesh/act-1-plain/kafka/kafka.log").exists, within_s=60.0)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "It was interrupted" in report.read_text()
    assert "Found: nothing" in said
