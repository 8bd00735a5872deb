"""``banditmesh experiment``, with a learner that answers out of a tally."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from banditmesh.contracts.learner.v1 import learner_pb2, learner_pb2_grpc
from banditmesh.experiments.era import Plan, Shown
from banditmesh.experiments.report import report
from banditmesh.experiments.tally import Tally
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.stops import Entry, Stopped
from services.learner.experiment_reply import reply
from services.learner.experiments import Found

Run = Callable[..., Any]
EXPERIMENT = (
    parse_mesh("""
services: {films: {logics: [similar]}}
placements:
  home:
    sources: [films/similar]
    experiment: {variants: {old: {weight: 1, policy: random}, new: {weight: 1, policy: linucb}}}
""")
    .placements["home"]
    .experiment
)
STOP = Entry("new", "stopped", 1_700_000_000_000, "guardrail mute_rate, learner 0", "it was muted too often")


T_MS = 1_700_000_000_000


def shown(n: int, missing: int = 0, decided_ms: int = T_MS) -> Shown:
    """``n`` users of each variant but for ``missing`` of ``new``; half of the old ones click, and all new ones do."""
    users = np.arange(2 * n - missing, dtype=np.uint64)
    old = users < n
    return Shown(
        users=users,
        variants=["old" if each else "new" for each in old],
        decided_ms=np.full(len(users), decided_ms),
        shown_ms=np.full(len(users), T_MS),
        rewards=np.where(old & (users % 2 == 0), 0.5, 1.0),
        clicked=~old | (users % 2 == 1),
        muted=np.zeros(len(users), np.bool_),
        reached=np.zeros(len(users), np.bool_),
        dwelt=np.zeros(len(users), np.bool_),
        targets=[""] * len(users),
    )


class Learner(learner_pb2_grpc.LearnerServiceServicer):
    """Answers out of a tally."""

    def __init__(self) -> None:
        self.shown = [shown(400)]
        self.starts_ms = self.watermark_ms = 0
        self.resumed: list[learner_pb2.ResumeVariantRequest] = []

    def GetExperimentReport(self, request: learner_pb2.GetExperimentReportRequest, context: Any) -> Any:
        if request.placement != "home":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such placement")
        tally = Tally()
        tally.plan(Plan("s", {"old": 1.0, "new": 1.0}, "old", compared=("new",), starts_ms=self.starts_ms), 0)
        for each in self.shown:
            tally.learn(each)
        era = tally.eras[-1]
        stopped = Stopped({"new": STOP}, (STOP,))
        return reply(Found(report(era), EXPERIMENT, era, 1, self.watermark_ms, stopped, 3, 7))

    def ResumeVariant(self, request: learner_pb2.ResumeVariantRequest, context: Any) -> Any:
        self.resumed.append(request)
        return learner_pb2.ResumeVariantResponse(was=learner_pb2.VariantChange(variant="new", why=STOP.why))


@pytest.fixture
def learner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Learner]:
    with ThreadPoolExecutor(2) as threads:
        server, answers = grpc.server(threads), Learner()
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(answers, server)
        monkeypatch.setenv("BANDITMESH_LEARNER", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        yield answers
        server.stop(0).wait()


def test_a_report_is_a_table_of_variants_and_one_of_differences(learner: Learner, run: Run) -> None:
    ended = run("experiment", "home", "--days")
    assert ended.code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ended.out.splitlines() if "│" in line]
    old = [row[1] for row in rows if len(row) == 3]
    assert old == ["50.0%", "400", "400", "0.75", "0.5", "0", "0"]
    (click,) = (row for row in rows if "click_rate" in row and "+100.0%" in row)
    assert click[-1] == "better"
    assert "Users by variant are as promised" in ended.out
    assert "2023-11-14 22:13 UTC, new stopped by guardrail mute_rate, learner 0: it was muted too often" in ended.out
    assert "2023-11-14" in ended.out
    assert "7 impressions were decided within a minute of a change" in ended.out
    assert "3 impressions were of variants that the experiment does not have" in ended.out


def test_before_the_start_it_says_when_that_is_and_that_nothing_counts_yet(learner: Learner, run: Run) -> None:
    learner.starts_ms, learner.watermark_ms = T_MS + 60_000, T_MS
    said = words(run("experiment", "home"))
    assert "Nothing has been counted yet." in said
    assert "as promised" not in said
    assert "It starts at 2023-11-14 22:14 UTC" in said
    assert "(800 impressions so far)" in said
    assert "all is counted that was closed by 2023-11-14 22:13 UTC" in said


def test_after_the_start_it_says_what_the_time_before_is_worth(learner: Learner, run: Run) -> None:
    learner.shown.append(shown(400, decided_ms=T_MS + 60_000))
    learner.starts_ms = learner.watermark_ms = T_MS + 60_000
    ended = run("experiment", "home", "--days")
    assert "It started at 2023-11-14 22:14 UTC. 800 impressions of before then adjust the differences" in words(ended)
    assert re.search(r"explain of their variance: \d+% of reward", words(ended))
    assert sum("before the start" in line for line in ended.out.splitlines()) == 2
    assert ended.out.count("2023-11-14 ") >= 4


def test_a_start_that_nothing_was_seen_before_says_so(learner: Learner, run: Run) -> None:
    learner.starts_ms = learner.watermark_ms = T_MS
    assert "nothing before that is known of its users" in words(run("experiment", "home"))


def test_what_an_interval_waits_for_is_said(learner: Learner, run: Run) -> None:
    learner.shown = [shown(20)]
    assert "An interval takes 50 groups of users in each variant, of 1,024" in words(run("experiment", "home"))


def words(ended: Any) -> str:
    """What was printed, without the line breaks of a terminal."""
    return " ".join(ended.out.split())


def test_a_narrow_terminal_cuts_nothing_off(learner: Learner, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    ended = run("experiment", "home", "--days")
    assert "new (stopped)" in ended.out
    assert "…" not in ended.out


def test_the_same_is_there_as_json_and_as_a_picture(learner: Learner, run: Run, tmp_path: Path) -> None:
    ended = run("experiment", "home", "--json", "--plot", tmp_path / "plot.png")
    assert json.loads(ended.out)["variants"][1]["stopped"]["why"] == STOP.why
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_mismatch_is_said_and_strict_ends_with_3(learner: Learner, run: Run) -> None:
    learner.shown = [shown(400, missing=150)]
    ended = run("experiment", "home", "--strict")
    assert ended.code == 3
    assert "Sample ratio mismatch" in ended.out


def test_one_call_resumes_a_variant(learner: Learner, run: Run) -> None:
    ended = run("experiment", "home", "--resume", "new", "--why", "the app was wrong")
    assert (ended.code, learner.resumed[0].variant, learner.resumed[0].why) == (0, "new", "the app was wrong")
    assert "it was muted too often" in ended.err


def test_what_the_learner_refuses_is_said_in_a_line(learner: Learner, run: Run) -> None:
    ended = run("experiment", "hmoe")
    assert (ended.code, ended.err) == (1, "banditmesh: no such placement\n")
