"""The torture's plans, rules and reports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template

import numpy as np
import pytest

from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.snapshots import Manifest, Snapshot
from banditmesh.torture import oracle
from banditmesh.torture.faults import BY_NAME, FAULTS
from banditmesh.torture.learned import differences
from banditmesh.torture.oracle import Finding
from banditmesh.torture.report import Report, RoundResult
from banditmesh.torture.rules import milliseconds, rules_of
from banditmesh.torture.traffic import plan
from banditmesh.torture.world import MESH

USERS = [f"u{number}" for number in range(50)]
WINDOWS_S = {"home": 3.0, "brief": 1.0}
TEXT = Template(MESH.read_text()).substitute(WINDOW="3s", REPLICATION=1)


def test_the_same_seed_gives_the_same_visits_and_another_one_others() -> None:
    visits = [plan(1, number, USERS, WINDOWS_S) for number in range(200)]
    assert visits == [plan(1, number, USERS, WINDOWS_S) for number in range(200)]
    assert visits != [plan(2, number, USERS, WINDOWS_S) for number in range(200)]


def test_visits_react_before_at_and_after_the_windows_end_again_and_in_several_ways() -> None:
    visits = [plan(1, number, USERS, WINDOWS_S) for number in range(500)]
    delays = [delay / WINDOWS_S[visit.placement] for visit in visits for _, _, delay in visit.reactions]
    assert min(delays) < 0
    assert sum(0.8 < delay < 1.2 for delay in delays) > 50
    assert sum(delay > 1.2 for delay in delays) > 50
    assert {key[0] for visit in visits for key, _, _ in visit.reactions} == {"click", "mute", "target", "dwell"}
    assert any(len({key for key, _, _ in visit.reactions}) < len(visit.reactions) for visit in visits)
    assert any(visit.again_s is not None for visit in visits)
    assert {visit.lies for visit in visits} == {-1, 0, 1}


def test_the_oracle_reads_the_same_rules_as_the_mesh() -> None:
    mesh, rules = parse_mesh(TEXT), rules_of(TEXT)
    assert rules.keys() == mesh.placements.keys()
    for name, placement in mesh.placements.items():
        rewards, ours = placement.rewards, rules[name]
        assert ours.window_ms == round(mesh.join_window_s(name) * 1000)
        assert (ours.click, ours.none, ours.mute, ours.dwell) == (
            rewards.click,
            rewards.none,
            rewards.mute,
            rewards.dwell,
        )
        assert (ours.targets, ours.precedence, ours.limit) == (rewards.targets, rewards.precedence, rewards.limit)


def test_a_duration_that_the_oracle_does_not_know_is_refused() -> None:
    assert milliseconds("1500ms") == 1500
    assert milliseconds(2) == 2000
    with pytest.raises(ValueError, match="fortnight"):
        milliseconds("1 fortnight")


def test_the_oracle_shares_no_code_with_the_joiner() -> None:
    folder = Path(oracle.__file__).parent
    for module in ("oracle", "evidence", "rules", "reading"):
        imported = re.findall(r"^(?:from|import) (\S+)", (folder / f"{module}.py").read_text(), re.MULTILINE)
        ours = [name for name in imported if name.startswith(("banditmesh", "services"))]
        assert all(name.startswith(("banditmesh.torture", "banditmesh.contracts")) for name in ours), module


def test_each_of_the_ten_kinds_has_a_round_and_each_round_says_what_it_does() -> None:
    assert {fault.number for fault in FAULTS} == set(range(1, 11))
    assert len(BY_NAME) == len(FAULTS)
    assert all(fault.what.endswith(".") for fault in FAULTS)


def snapshot(examples: int, **tensors: float) -> Snapshot:
    manifest = Manifest("home", "linucb", "linucb", {}, 1, 0, examples, {}, {})
    return Snapshot(manifest, {name: np.array([value]) for name, value in tensors.items()})


def test_a_model_as_undisturbed_is_good_to_1e_9_and_not_beyond() -> None:
    name = ("home", "linucb")
    undisturbed = {name: snapshot(10, b=100.0)}
    assert not list(differences({name: snapshot(10, b=100.0 * (1 + 1e-12))}, undisturbed, {"home": 10}))
    for other in (snapshot(10, b=100.0 * (1 + 1e-8)), snapshot(10, b=float("nan")), snapshot(10, c=100.0)):
        found = list(differences({name: other}, undisturbed, {"home": 10}))
        assert {each.kind for each in found} == {oracle.LEARNED}


def test_an_example_learned_twice_or_never_is_found() -> None:
    name = ("home", "linucb")
    for examples in (9, 11):
        found = list(differences({name: snapshot(examples)}, {name: snapshot(10)}, {"home": 10}))
        assert found == [Finding(oracle.LEARNED, "home/linucb", f"the mesh has learned {examples} examples of 10")]
    assert list(differences({}, {name: snapshot(10)}, {"home": 10}))


def test_a_report_says_what_was_done_when_and_counts_zeros_too(tmp_path: Path) -> None:
    report = Report(seed=4, minutes=1.0)
    report.chronicle.round = "kills"
    report.chronicle.note("SIGKILL joiner-1")
    report.rounds.append(RoundResult("kills", "Kills.", 1, "plain", impressions=12))
    assert report.good
    report.write(tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "kills: SIGKILL joiner-1" in text
    assert all(f"| {kind} | 0 |" in text for kind in oracle.KINDS)
    assert json.loads((tmp_path / "report.json").read_text())["found"]["missing"] == 0


def test_a_finding_an_interruption_and_a_breakdown_are_not_good() -> None:
    found = Report(1, 1.0)
    found.rounds.append(RoundResult("kills", "", 1, "plain", findings=[Finding(oracle.MISSING, "ab", "gone")]))
    assert not found.good
    assert "- kills: **missing** ab: gone" in found.markdown()
    assert not Report(1, 1.0, interrupted=True).good
    assert not Report(1, 1.0, broke="kafka did not start").good
