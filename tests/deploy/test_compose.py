"""``deploy/local/compose.yaml``, read as `docker compose config` reads it; no test here runs Docker."""

from __future__ import annotations

import re
from typing import Any

import yaml

from banditmesh.runtime.settings import variable
from services.crs_engine.settings import EngineSettings
from services.importer.settings import ImporterSettings
from services.joiner.settings import JoinerSettings
from services.learner.settings import LearnerSettings
from services.tracker.settings import TrackerSettings
from tests.deploy.checkout import ROOT

SETTINGS = {
    "importer": ImporterSettings,
    "engine": EngineSettings,
    "tracker": TrackerSettings,
    "joiner": JoinerSettings,
    "learner": LearnerSettings,
}


def compose() -> dict[str, Any]:
    """The file, with defaults in place of variables."""
    text = (ROOT / "deploy" / "local" / "compose.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return document


def test_every_image_is_one_that_is_built() -> None:
    targets = set(re.findall(r"^FROM runtime AS (\w+)", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE))
    images = {service["image"] for service in compose()["services"].values()}
    assert images <= {f"banditmesh-{target}:0.1.0" for target in targets}


def test_every_required_setting_of_a_service_is_given() -> None:
    for name, settings in SETTINGS.items():
        given = compose()["services"][name]["environment"]
        required = {variable(key) for key, field in settings.model_fields.items() if field.is_required()}
        assert required <= given.keys(), name


def test_each_service_listens_where_its_port_leads() -> None:
    ports = {"importer": 50051, "engine": 50052, "tracker": 50053, "joiner": 50054, "learner": 50055}
    for name, port in ports.items():
        service = compose()["services"][name]
        assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
        default = SETTINGS[name].model_fields["grpc_address"].default
        assert service["environment"].get("BANDITMESH_GRPC_ADDRESS", str(default)) == f"0.0.0.0:{port}"


def test_every_file_that_is_mounted_and_every_volume_exists() -> None:
    document = compose()
    for service in document["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in document["volumes"] or (ROOT / "deploy" / "local" / source).exists(), volume
