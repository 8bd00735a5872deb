"""What docs/operations.md tells operators of failures exists: rounds, metrics, log lines, alerts."""

from __future__ import annotations

import re
from pathlib import Path

from banditmesh.torture.faults import FAULTS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operations.md").read_text()
STORIES = PAGE.partition("## Failure stories")[2].partition("\n## ")[0]
SOURCES = "\n".join(path.read_text() for folder in ("services", "banditmesh") for path in (ROOT / folder).rglob("*.py"))
LOGGED = ("services", "banditmesh/runtime", "banditmesh/local")


def test_each_round_of_the_torture_has_its_story() -> None:
    told = set(re.findall(r"`([a-z0-9-]+)`", " ".join(re.findall(r"^\| \d[^|]*\|", STORIES, re.MULTILINE))))
    assert {fault.name for fault in FAULTS} <= told


def test_every_metric_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(banditmesh_[a-z_]+)", PAGE))
    # Those of the importer, and a few others, are put together out of a prefix and a name.
    missing = {
        name
        for name in named
        if f'"{name}' not in SOURCES and not any(f"_{name.split('_', cut)[-1]}" in SOURCES for cut in (2, 3))
    }
    assert missing - {"banditmesh_"} == set()


def test_every_alert_and_every_log_line_that_the_stories_name_exists() -> None:
    rules = (ROOT / "deploy/helm/banditmesh/files/rules.yaml").read_text()
    alerts = set(re.findall(r"\bBanditmesh[A-Z]\w+", STORIES))
    assert alerts
    assert {name for name in alerts if f"alert: {name}\n" not in rules} == set()
    code = "\n".join(path.read_text() for folder in LOGGED for path in (ROOT / folder).rglob("*.py"))
    lines = set(re.findall(r'"([a-zA-Z][^"`]{9,})"', STORIES)) - {"No space left on device", "unknown_kind"}
    assert {line for line in lines if line not in code} == set()
