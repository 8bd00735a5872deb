"""Objects of the Prometheus operator, of KEDA and of cert-manager, against the definitions of their own projects."""

from __future__ import annotations

import copy

import jsonschema
import pytest

from tests.deploy.crds import DEFINED, schema
from tests.deploy.rendering import Object, rendered

EVERYTHING = (
    "joiner.keda.enabled=true",
    'joiner.keda.authenticationRef="kafka"',
    'tls.certManager.issuer="ca"',
    "monitoring.podMonitor.enabled=true",
    "monitoring.rules.enabled=true",
)


def validate(each: Object) -> None:
    """Raises jsonschema.ValidationError."""
    jsonschema.Draft202012Validator(schema(each["kind"], each["apiVersion"].rpartition("/")[2])).validate(each)


@pytest.mark.parametrize("kind", sorted(DEFINED))
def test_a_custom_object_is_what_its_definition_takes(kind: str) -> None:
    found = [each for each in rendered("production", *EVERYTHING) if each["kind"] == kind]
    assert found
    for each in found:
        validate(each)
        wrong = copy.deepcopy(each)
        wrong["spec"]["notAField"] = 1
        with pytest.raises(jsonschema.ValidationError, match="notAField"):
            validate(wrong)


def test_no_custom_object_is_left_out() -> None:
    """Whatever is of no group of Kubernetes' own has a definition here."""
    own = {"v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2"}
    custom = {
        each["kind"]
        for each in rendered("production", *EVERYTHING)
        if each["apiVersion"] not in own and ".k8s.io/" not in each["apiVersion"]
    }
    assert custom == set(DEFINED)
