"""In which order releases roll out: data, and what it must be true to."""

from __future__ import annotations

import re

import yaml

from tests.deploy.checkout import ROOT
from tests.deploy.tools import CHART

CHANGES = yaml.safe_load((CHART / "files" / "rollout.yaml").read_text())["changes"]
ARROWS = {
    "new_record_in_impressions_or_reactions": ("tracker", "joiner"),
    "new_record_in_examples": ("joiner", "learner"),
    "new_field_in_the_token": ("engine", "tracker"),
    "new_snapshot_format": ("learner", "engine"),
    "new_packed_value_of_mappings": ("importer", "engine"),
    "new_section_of_the_user_record": ("joiner", "engine"),
}
"""Who writes, who reads."""


def before(order: list[str], first: str, second: str) -> bool:
    return order.index(first) < order.index(second)


def test_readers_of_a_new_kind_of_record_come_first_and_leave_last() -> None:
    assert ARROWS.keys() | {"new_key_of_mesh_yaml"} == CHANGES.keys()
    for change, (writer, reader) in ARROWS.items():
        assert before(CHANGES[change]["upgrade"], reader, writer), change
        assert before(CHANGES[change]["rollback"], writer, reader), change


def test_a_rollback_is_the_upgrade_backwards() -> None:
    for change, orders in CHANGES.items():
        assert orders["rollback"] == orders["upgrade"][::-1], change


def test_the_page_shows_the_same_orders() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    rows = dict(re.findall(r"^\| (new [a-z ]+) \| ([a-z →]+) \|", page, re.MULTILINE))
    assert rows == {change.replace("_", " "): " → ".join(orders["upgrade"]) for change, orders in CHANGES.items()}
