"""What kube-score asks of manifests (v1.20, its checks by their names), without building it: minutes of Go.

Left out, on purpose: `container-image-pull-policy` (a tag is never pushed twice, so Always would only slow a start
down), CPU limits of `container-resources` (a limit throttles a server that the node has time for; requests share it),
`container-ephemeral-storage-request-and-limit` (volumes have size limits, the root file system is read-only), the
learner's `statefulset-has-poddisruptionbudget` (a shard has one pod, which a budget would keep from every drain;
without it models are only older for a while), and host anti-affinity (topology spread constraints do that). kube-score
1.20 itself, built and run by hand over the values for evaluation and for production, finds these, and of the former
that some Deployments have one pod, as is meant there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.rendering import VALUES_FILES, Object, of_kind, rendered

OPTIONS = ("engine.autoscaling.enabled=true", "joiner.keda.enabled=true")


def objects(values: str) -> tuple[Object, ...]:
    return rendered(values, *OPTIONS)


def templates(values: str) -> Iterator[tuple[str, Object]]:
    """(kind and name, pod template) of everything that makes pods."""
    for each in objects(values):
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each
        elif each["kind"] == "CronJob":
            yield name, each["spec"]["jobTemplate"]["spec"]["template"]
        elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, each["spec"]["template"]


def containers(template: Object) -> list[Object]:
    return [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]


def selected(selector: dict[str, Any], values: str) -> set[str]:
    labels = selector.get("matchLabels", selector)
    return {name for name, each in templates(values) if labels.items() <= each["metadata"].get("labels", {}).items()}


@pytest.mark.parametrize("values", VALUES_FILES)
def test_containers(values: str) -> None:
    """container-resources, -image-tag, -security-context-*, -ports-check, environment-variable-key-duplication."""
    for name, template in templates(values):
        pod = template["spec"]["securityContext"]
        assert min(pod["runAsUser"], pod["runAsGroup"]) > 10_000, name
        for each in containers(template):
            security = each["securityContext"]
            assert not security.get("privileged"), name
            assert security["readOnlyRootFilesystem"] is True, name
            assert {"cpu", "memory"} <= each["resources"]["requests"].keys(), name
            assert "memory" in each["resources"]["limits"], name
            assert each["image"].rpartition(":")[2] not in ("", "latest"), name
            variables = [variable["name"] for variable in each.get("env", [])]
            assert len(variables) == len(set(variables)), name
            ports = [port["name"] for port in each.get("ports", [])]
            assert len(ports) == len(set(ports)), name


def test_a_variable_of_extra_env_stands_instead_of_the_charts_own() -> None:
    """Beside it, a server-side apply would refuse the whole release."""
    extra = ('extraEnv={"BANDITMESH_GRACE_S": "99"}', 'engine.extraEnv={"BANDITMESH_METRICS_PORT": "91"}')
    for name, each in of_kind(rendered("production", *extra), "Deployment", "StatefulSet").items():
        (container,) = each["spec"]["template"]["spec"]["containers"]
        variables = [variable["name"] for variable in container["env"]]
        assert len(variables) == len(set(variables)), name
        values = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert values["BANDITMESH_GRACE_S"] == "99", name
        assert values["BANDITMESH_METRICS_PORT"] == ("91" if name == "mesh-engine" else "9090")


@pytest.mark.parametrize("values", VALUES_FILES)
def test_every_pod_has_a_network_policy_of_both_directions(values: str) -> None:
    """pod-networkpolicy, beside the one that denies everything to all."""
    policies = of_kind(objects(values), "NetworkPolicy")
    policies.pop("mesh-default-deny")
    covered: set[str] = set()
    for policy in policies.values():
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        covered |= selected(policy["spec"]["podSelector"], values)
    assert covered == {name for name, _ in templates(values)}


@pytest.mark.parametrize("values", VALUES_FILES)
@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy", "PodDisruptionBudget"])
def test_whatever_selects_pods_finds_some(kind: str, values: str) -> None:
    """service-targets-pod, networkpolicy-targets-pod."""
    found = of_kind(objects(values), kind)
    assert found
    for name, each in found.items():
        assert selected(each["spec"].get("podSelector", each["spec"].get("selector", {})), values), name


@pytest.mark.parametrize("values", VALUES_FILES)
def test_what_serves_survives_a_node(values: str) -> None:
    """deployment-has-poddisruptionbudget, -host-podantiaffinity, pod-topology-spread-constraints, -probes, and
    statefulset-has-servicename. The learner has no budget: its one replica must not hold up a drain."""
    budgets = of_kind(objects(values), "PodDisruptionBudget")
    protected = {name for each in budgets.values() for name in selected(each["spec"]["selector"], values)}
    services = of_kind(objects(values), "Service")
    for each in objects(values):
        if each["kind"] not in ("Deployment", "StatefulSet"):
            continue
        name = each["metadata"]["name"]
        if not selected(each["spec"]["selector"], values) & protected:
            assert name in ("mesh-learner", "mesh-kafka", "mesh-valkey", "mesh-s3", "mesh-provider"), name
        else:
            keys = {spread["topologyKey"] for spread in each["spec"]["template"]["spec"]["topologySpreadConstraints"]}
            assert "kubernetes.io/hostname" in keys, name
        if each["kind"] == "StatefulSet":
            assert each["spec"]["serviceName"] in services
        (container,) = each["spec"]["template"]["spec"]["containers"]
        assert container["readinessProbe"] != container.get("livenessProbe"), name


def test_a_cron_job_that_missed_its_hour_says_for_how_long_it_may_still_begin() -> None:
    """cronjob-has-deadline, cronjob-restartpolicy."""
    found = of_kind(objects("production"), "CronJob")
    assert found
    for name, each in found.items():
        assert each["spec"]["startingDeadlineSeconds"] > 10, name  # less is never seen by the controller
        assert each["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] in ("Never", "OnFailure")


@pytest.mark.parametrize("values", VALUES_FILES)
def test_every_version_is_stable(values: str) -> None:
    """stable-version; who defines an object of another project decides its version."""
    for each in objects(values):
        if "." not in each["apiVersion"].partition("/")[0] or ".k8s.io/" in each["apiVersion"]:
            assert "beta" not in each["apiVersion"], each["metadata"]["name"]
            assert "alpha" not in each["apiVersion"], each["metadata"]["name"]
