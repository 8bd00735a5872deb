"""Under which account each pod runs, and whether who has no Secret reaches what hands its credentials out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.deploy.checkout import ROOT
from tests.deploy.rendering import VALUES_FILES, Object, canonical, of_kind, pods, rendered

EXAMPLES = re.findall(r"\*\*(\w+), .*?```yaml\n(.*?)```", (ROOT / "docs" / "kubernetes.md").read_text(), re.DOTALL)
"""(where, values) of docs/kubernetes.md, each to lie over values-production.yaml."""
IDENTITY = {"ports": [{"port": 443, "protocol": "TCP"}]}


def documented(where: str) -> tuple[Object, ...]:
    """What the chart renders of the values that docs/kubernetes.md has for a place."""
    values: dict[str, Any] = yaml.safe_load(dict(EXAMPLES)[where])
    return rendered("production", *(f"{key}={json.dumps(value)}" for key, value in values.items()))


def accounts(objects: tuple[Object, ...]) -> dict[str, str]:
    """The ServiceAccount of each pod."""
    return {name: spec.get("serviceAccountName", "") for name, spec in pods(objects)}


def egress(objects: tuple[Object, ...], component: str) -> list[Object]:
    return list(of_kind(objects, "NetworkPolicy")[f"mesh-{component}"]["spec"]["egress"])


@pytest.mark.parametrize("values", VALUES_FILES)
@pytest.mark.parametrize("learner", ["true", "false"])
def test_every_pod_of_ours_runs_under_an_account_that_is_there(values: str, learner: str) -> None:
    objects = rendered(values, f"learner.enabled={learner}", "evaluation.demo.traffic=true")
    made = of_kind(objects, "ServiceAccount")
    for name, account in accounts(objects).items():
        if account or not name.startswith(("mesh-kafka", "mesh-valkey", "mesh-s3", "mesh-provider")):
            assert account in made, name


@pytest.mark.parametrize("where", dict(EXAMPLES))
def test_the_values_of_the_documentation_can_be_rendered(where: str) -> None:
    assert "mesh-engine" in of_kind(documented(where), "Deployment")


def test_on_msk_with_iam_whoever_speaks_to_kafka_or_s3_has_the_role_and_reaches_who_hands_out_its_credentials() -> None:
    objects = documented("EKS")
    made, found = of_kind(objects, "ServiceAccount"), accounts(objects)
    for name, spec in pods(objects):
        used = {each["name"] for container in spec["containers"] for each in container["env"]}
        if not used & {"BANDITMESH_KAFKA", "BANDITMESH_STORE"}:
            continue
        assert "eks.amazonaws.com/role-arn" in made[found[name]]["metadata"]["annotations"], name
        part = re.sub(r"^mesh-(topics|test|archive).*", r"\1", name).removeprefix("mesh-")
        assert IDENTITY in egress(objects, part), name


def test_with_secrets_no_such_way_is_open() -> None:
    of_keys = ('store.existingSecret="keys"', "networkPolicy.store.ports=[9000]", 'kafka.token="file:///var/token"')
    policies = of_kind(rendered("production", *of_keys), "NetworkPolicy")
    assert canonical(IDENTITY) not in canonical(policies)
