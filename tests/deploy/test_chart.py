"""What the chart renders, and what its values switch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from banditmesh.demo.target import ExistingSettings
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.settings import variable
from services.crs_engine.settings import EngineSettings
from services.importer.settings import ImporterSettings
from services.joiner.settings import JoinerSettings
from services.learner.settings import LearnerSettings
from services.tracker.settings import TrackerSettings
from tests.deploy.checkout import ROOT
from tests.deploy.rendering import (
    SERVICES,
    VALUES_FILES,
    Object,
    canonical,
    component,
    helm_template,
    mesh_yaml,
    of_kind,
    pods,
    rendered,
)
from tests.deploy.tools import CHART, helm

SETTINGS = (EngineSettings, ImporterSettings, TrackerSettings, JoinerSettings, LearnerSettings, ExistingSettings)
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject", "Certificate"}
"""Kinds of others, whose schemas are not Kubernetes' own: see test_custom_objects.py."""


@pytest.mark.parametrize("values", VALUES_FILES)
def test_helm_lint_has_nothing_to_say(values: str) -> None:
    argv = [helm(), "lint", "--strict", CHART, "--values", CHART / f"values-{values}.yaml"]
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36"])
@pytest.mark.parametrize("values", VALUES_FILES)
def test_every_object_is_valid(values: str, version: str) -> None:
    everything = rendered(values, "joiner.keda.enabled=true", "engine.autoscaling.enabled=true")
    for each in everything:
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("values", VALUES_FILES)
def test_its_mesh_yaml_is_valid_and_has_the_placement_that_is_tested(values: str) -> None:
    mesh = parse_mesh(mesh_yaml(rendered(values)))
    written = yaml.safe_load((CHART / f"values-{values}.yaml").read_text())
    assert [written["test"]["importInto"]] == mesh.placements[written["test"]["placement"]].sources


def test_the_readme_and_the_schema_are_those_of_values_yaml() -> None:
    spec = importlib.util.spec_from_file_location("chart_reference", ROOT / "tools" / "chart_reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    values = (CHART / "values.yaml").read_text()
    assert (CHART / "README.md").read_text() == reference.readme(values), "run: make chart"
    assert (CHART / "values.schema.json").read_text() == reference.schema_text(values), "run: make chart"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("engine.replicsa=3", "replicsa"),
        ('engine.replicas="three"', "/engine/replicas"),
        ('kafka.securityProtocol="TLS"', "/kafka/securityProtocol"),
        ('redis.url="redis://user:password@host:6379"', "/redis/url"),
        ('store.url="http://bucket"', "/store/url"),
        ('kafka.servers="broker"', "/kafka/servers"),
    ],
)
def test_a_wrong_value_is_refused_by_name(wrong: str, named: str) -> None:
    done = helm_template("production", "--set-json", wrong)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize(
    ("missing", "named"),
    [('kafka.servers=""', "where is your Kafka?"), ('tokens.existingSecret=""', "openssl rand -hex 32")],
)
def test_what_is_missing_is_asked_for(missing: str, named: str) -> None:
    assert named in helm_template("production", "--set-json", missing).stderr


@pytest.mark.parametrize("values", VALUES_FILES)
def test_rendering_twice_gives_the_same_bytes(values: str) -> None:
    assert helm_template(values).stdout == helm_template(values).stdout


def test_nothing_hooks_into_install_or_upgrade_and_nothing_depends_on_the_release_number() -> None:
    for path in (CHART / "templates").rglob("*.*"):
        assert ".Release.Revision" not in path.read_text()
        assert ".Release.IsUpgrade" not in path.read_text()
    for values in VALUES_FILES:
        hooks = {each["metadata"].get("annotations", {}).get("helm.sh/hook") for each in rendered(values)}
        assert hooks == {None, "test"}


@pytest.mark.parametrize("values", VALUES_FILES)
def test_what_can_never_change_is_what_it_was_in_the_first_release(values: str) -> None:
    immutable = {
        f"{each['kind']}/{each['metadata']['name']}": {
            key: each["spec"][key]
            for key in ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates", "clusterIP")
            if key in each["spec"]
        }
        for each in rendered(values)
        if each["kind"] in ("Deployment", "StatefulSet", "Service")
    }
    before = json.loads((Path(__file__).parent / "immutable.json").read_text())[values]
    assert {name: immutable[name] for name in before} == before


@pytest.mark.parametrize("values", VALUES_FILES)
def test_every_pod_is_restricted(values: str) -> None:
    for name, spec in pods(rendered(values)):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= container["resources"].keys()
            assert "memory" in container["resources"]["limits"]


def test_probes_are_grpc_and_no_restart_depends_on_another_server() -> None:
    for name, spec in pods(rendered("production")):
        if name.removeprefix("mesh-") not in SERVICES:
            continue
        (container,) = spec["containers"]
        assert container["livenessProbe"]["grpc"]["service"] == "liveness"
        assert container["startupProbe"]["grpc"]["service"] == "liveness"
        assert "service" not in container["readinessProbe"]["grpc"]
        shutdown = yaml.safe_load((CHART / "values.yaml").read_text())["shutdown"]
        assert spec["terminationGracePeriodSeconds"] > shutdown["drainSeconds"] + shutdown["graceSeconds"]


def test_with_tls_every_grpc_port_serves_it_and_probes_go_to_a_port_of_health_alone() -> None:
    objects = rendered("production", 'tls.existingSecret="certificates"', "tls.clientAuth=true")
    for name, spec in pods(objects):
        if name.removeprefix("mesh-") not in SERVICES:
            continue
        (container,) = spec["containers"]
        environment = {each["name"]: each.get("value") for each in container["env"]}
        assert environment["BANDITMESH_TLS_CERT"] == "/etc/banditmesh-tls/tls.crt"
        assert environment["BANDITMESH_TLS_CLIENT_CA"] == "/etc/banditmesh-tls/ca.crt"
        assert environment["BANDITMESH_HEALTH_ADDRESS"] == "0.0.0.0:50050"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["grpc"]["port"] == 50050
    test = of_kind(objects, "Pod")["mesh-test-loop"]["spec"]["containers"][0]["env"]
    assert {"name": "BANDITMESH_CLIENT_CERT", "value": "/etc/banditmesh-client/tls.crt"} in test


def test_cert_manager_makes_a_certificate_for_every_name() -> None:
    objects = rendered("production", 'tls.certManager.issuer="ca"')
    names = of_kind(objects, "Certificate")["mesh-tls"]["spec"]["dnsNames"]
    services = [name for name in of_kind(objects, "Service") if name.removeprefix("mesh-") in SERVICES]
    assert {f"{name}.demo.svc" for name in services} | set(services) <= set(names)


def test_every_variable_that_the_chart_sets_is_one_that_a_service_reads() -> None:
    """A typing error would be a setting that nobody notices to be missing."""
    known = {variable(name) for kind in SETTINGS for name in kind.model_fields}
    everything = (
        'tls.existingSecret="c"',
        "tls.clientAuth=true",
        'kafka.tlsSecret="k"',
        "kafka.clientCertificate=true",
    )
    more = ('redis.tlsSecret="r"', "redis.clientCertificate=true", 'redis.prefix="p"', 'test.apiKeySecret="a"')
    more = (*more, 'archive.keySecret="k"')
    options = (*everything, *more, 'kafka.token="aws-msk-iam"', "tls.reflection=false")
    for name, spec in pods(rendered("production", *options)):
        for container in spec["containers"]:
            used = {each["name"] for each in container["env"] if each["name"].startswith("BANDITMESH_")}
            assert used <= known, name


def test_secrets_are_named_and_never_made() -> None:
    objects = rendered("production")
    assert not of_kind(objects, "Secret")
    text = canonical(objects)
    for name in ("banditmesh-kafka", "banditmesh-redis", "banditmesh-tokens"):
        assert name in text


def test_each_service_gets_the_secrets_of_what_it_talks_to_and_no_others() -> None:
    needs = {
        "importer": {"banditmesh-redis"},
        "engine": {"banditmesh-redis", "banditmesh-tokens"},
        "tracker": {"banditmesh-kafka", "banditmesh-tokens"},
        "joiner": {"banditmesh-kafka", "banditmesh-redis"},
        "learner": {"banditmesh-kafka"},
    }
    for name, spec in pods(rendered("production")):
        service = name.removeprefix("mesh-")
        if service in needs:
            environment = spec["containers"][0]["env"]
            references = (each["valueFrom"] for each in environment if "valueFrom" in each)
            secrets = {each["secretKeyRef"]["name"] for each in references if "secretKeyRef" in each}
            assert secrets == needs[service], service


def test_the_archive_is_compacted_and_where_mesh_yaml_keeps_no_longer_expired() -> None:
    def jobs(*sets: str) -> dict[str, list[str]]:
        found = of_kind(rendered("production", *sets), "CronJob")
        specs = {name: each["spec"]["jobTemplate"]["spec"]["template"]["spec"] for name, each in found.items()}
        return {name: spec["containers"][0]["args"] for name, spec in specs.items()}

    mesh = "services: {a: {logics: [b]}}\nplacements: {home: {sources: [a/b]}}\narchive: {%s}"
    assert jobs() == {"mesh-archive-compact": ["archive", "compact"]}
    kept = jobs(f"mesh.config={json.dumps(mesh % 'keep: 400d')}")
    assert kept["mesh-archive-expire"] == ["archive", "expire", "--config", "/etc/banditmesh/mesh.yaml"]
    assert not jobs(f"mesh.config={json.dumps(mesh % 'enabled: false')}")
    assert not jobs("archive.compact.enabled=false")


def test_the_key_of_the_archives_pseudonyms_comes_from_a_secret_alone() -> None:
    keyed = "services: {a: {logics: [b]}}\nplacements: {home: {sources: [a/b]}}\narchive: {user_ids: keyed}"
    config = f"mesh.config={json.dumps(keyed)}"
    for name, spec in pods(rendered("production", config, 'archive.keySecret="pseudonyms"')):
        found = [
            each.get("valueFrom") for each in spec["containers"][0]["env"] if each["name"] == "BANDITMESH_ARCHIVE_KEY"
        ]
        reference = {"secretKeyRef": {"name": "pseudonyms", "key": "key"}}
        assert found == ([reference] if name == "mesh-learner" else []), name
    assert "archive.keySecret is empty" in helm_template("production", "--set-json", config).stderr


def test_the_engine_talks_to_kafka_where_decisions_are_sampled_and_nowhere_else() -> None:
    def speaks(*sets: str) -> bool:
        (spec,) = (spec for name, spec in pods(rendered("production", *sets)) if name == "mesh-engine")
        return "BANDITMESH_KAFKA" in {each["name"] for each in spec["containers"][0]["env"]}

    sampling = "services: {a: {logics: [b]}}\nplacements: {home: {sources: [a/b], decisions: {sample: 0.01}}}"
    assert not speaks()
    assert speaks("engine.sampledDecisions=true")
    assert speaks(f"mesh.config={json.dumps(sampling)}")


@pytest.mark.parametrize("service", SERVICES)
def test_only_where_events_are_made_a_token_is_mounted_and_it_may_do_nothing_else(service: str) -> None:
    def volumes(*sets: str) -> dict[str, Object]:
        spec = dict(pods(rendered("production", *sets)))[f"mesh-{service}"]
        return {each["name"]: each for each in spec["volumes"]}

    assert "account" not in volumes()
    assert not of_kind(rendered("production"), "Role", "RoleBinding")
    objects = rendered("production", "mesh.events=true")
    (token, *_) = volumes("mesh.events=true")["account"]["projected"]["sources"]
    assert token["serviceAccountToken"]["path"] == "token"
    (rule,) = of_kind(objects, "Role")["mesh-events"]["rules"]
    assert rule == {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}
    assert f"mesh-{service}" in {each["name"] for each in of_kind(objects, "RoleBinding")["mesh-events"]["subjects"]}
    egress = of_kind(objects, "NetworkPolicy")[f"mesh-{service}"]["spec"]["egress"]
    assert [rule for rule in egress if {"port": 6443, "protocol": "TCP"} in rule["ports"]]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_is_switched_off_leaves_nothing(service: str) -> None:
    objects = rendered("production", f"{service}.enabled=false")
    assert not [each for each in objects if each["metadata"]["name"] == f"mesh-{service}"]
    assert [each for each in rendered("production") if each["metadata"]["name"] == f"mesh-{service}"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_version_of_its_own(service: str) -> None:
    objects = rendered("production", f'{service}.image.tag="9.9.9"')
    images = {name: spec["containers"][0]["image"] for name, spec in pods(objects)}
    assert {name for name, image in images.items() if image.endswith(":9.9.9")} == {f"mesh-{service}"}
    init = next(spec["initContainers"][0] for name, spec in pods(objects) if name == f"mesh-{service}")
    assert init["image"] == images[f"mesh-{service}"]  # the new mesh.yaml is checked by who will read it
    assert init["command"] == ["banditmesh", "check", "/etc/banditmesh/mesh.yaml"]


def test_who_scales_by_itself_has_no_number_of_replicas() -> None:
    objects = rendered("production", "joiner.keda.enabled=true")
    for name, each in of_kind(objects, "Deployment").items():
        scaled = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
        assert ("replicas" in each["spec"]) != (name in scaled)
    assert of_kind(objects, "ScaledObject")["mesh-joiner"]["spec"]["triggers"][0]["metadata"]["topic"] == "reactions"


def topics_job(*sets: str) -> str:
    (name,) = of_kind(rendered("production", *sets), "Job")
    return name


def test_the_topics_job_is_another_one_when_it_does_something_else_and_the_same_one_otherwise() -> None:
    config = yaml.safe_load((CHART / "values-production.yaml").read_text())["mesh"]["config"]
    more = config.replace("partitions: 24", "partitions: 48")
    weights = config.replace("weight: 90", "weight: 80")
    assert more != config != weights
    assert topics_job() != topics_job('kafka.servers="other:9092"')
    assert topics_job() != topics_job(f"mesh.config={json.dumps(more)}")
    assert topics_job() == topics_job(f"mesh.config={json.dumps(weights)}")
    assert topics_job() == topics_job("engine.replicas=9")


ARROWS = {
    ("app", "engine"), ("app", "tracker"), ("team", "importer"),
    ("importer", "redis"), ("importer", "store"), ("importer", "provider"),
    ("engine", "redis"), ("engine", "store"),
    ("tracker", "kafka"),
    ("joiner", "kafka"), ("joiner", "redis"),
    ("learner", "kafka"), ("learner", "store"), ("archive", "store"),
    ("topics", "kafka"),
    *(("operator", service) for service in SERVICES),
    *(("test", target) for target in (*SERVICES, "kafka", "store")),
}  # fmt: skip
"""The design's arrows, with operators, and with `helm test`, which is an app, a service team and a reader."""
CALLED = {"valkey": "redis", "s3": "store"}


def peers(rules: list[Object], key: str) -> set[str]:
    found = set()
    for peer in (peer for rule in rules for peer in rule.get(key, [])):
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        found.add(labels.get("banditmesh/role") or component(labels))
    return {CALLED.get(each, each) for each in found} - {"*"}  # *: DNS and metrics, by namespace


def test_network_policies_are_the_arrows_of_the_design() -> None:
    policies = of_kind(rendered("evaluation"), "NetworkPolicy")
    denied = policies.pop("mesh-default-deny")["spec"]
    assert denied["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & denied.keys()
    into, out = set(), set()
    for policy in policies.values():
        own = component(policy["spec"]["podSelector"]["matchLabels"])
        own = CALLED.get(own, own)
        into |= {(peer, own) for peer in peers(policy["spec"].get("ingress", []), "from")}
        out |= {(own, peer) for peer in peers(policy["spec"].get("egress", []), "to")}
    inside = {"topics", "archive", "test", "redis", "store", "kafka", "provider", *SERVICES}
    assert into == ARROWS
    # The joiner and the learner answer `helm test` if it asks; it does not.
    expected = {(a, b) for a, b in ARROWS if a in inside} - {("test", "joiner"), ("test", "learner")}
    assert out == expected | {("kafka", "kafka")}


def test_an_engine_that_samples_decisions_may_talk_to_kafka_at_both_ends() -> None:
    policies = of_kind(rendered("evaluation", "engine.sampledDecisions=true"), "NetworkPolicy")
    assert "kafka" in peers(policies["mesh-engine"]["spec"]["egress"], "to")
    assert "engine" in peers(policies["mesh-kafka"]["spec"]["ingress"], "from")


def test_services_are_headless_so_that_clients_balance() -> None:
    for name, each in of_kind(rendered("production"), "Service").items():
        assert each["spec"]["clusterIP"] == "None", name


def notes(values: str) -> str:
    file = CHART / f"values-{values}.yaml"
    argv: list[Any] = [helm(), "install", "mesh", CHART, "-n", "demo", "--values", file, "--dry-run=client"]
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True).stdout


def test_the_notes_have_lines_to_paste() -> None:
    text = notes("evaluation").split("NOTES:")[1]
    assert "kubectl -n demo port-forward svc/mesh-engine 50052 &" in text
    assert "helm test -n demo mesh --logs" in text
    assert '{"placement": "hello", "user_id": "banditmesh-test"}' in text
