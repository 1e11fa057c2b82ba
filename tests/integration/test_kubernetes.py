"""
What lies under deploy/kubernetes: valid for the oldest and the newest Kubernetes that we say, and of one mind with the rest.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_obs.generate.links import JOB
from tests.queries import problems
from tests.unit.generate.shipped import KNOWN


pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
COMPONENTS = ("pod-monitor", "keda", "hpa", "second-container")
CUSTOM = {"PodMonitor", "ScaledObject"}
"""
Kinds that Kubernetes itself does not know.
"""


def loaded(path: Path) -> dict[str, Any]:
    """
    Read one document.
    """
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


RESOURCES = {path.stem: loaded(path) for path in sorted(FOLDER.rglob("*.yaml")) if path.name != "kustomization.yaml"}
DEPLOYMENTS = {name: resource for name, resource in RESOURCES.items() if resource["kind"] == "Deployment"}


def composed(folder: Path, *components: str) -> list[dict[str, Any]]:
    """
    Return what kubectl makes of the base and *components*, as a user's overlay would have them.
    """
    if shutil.which("kubectl") is None:
        pytest.skip("This test needs kubectl, which puts the parts together.")
    shutil.copytree(FOLDER, folder / "kubernetes")
    overlay = folder / "kubernetes/overlay"
    overlay.mkdir()
    tree = {
        "resources": ["../base"],
        "components": [f"../components/{name}" for name in components],
        "images": [{"name": "my-app", "newName": "registry.example.com/shop", "newTag": "1.4.2"}],
        "configMapGenerator": [{"name": "celery", "behavior": "merge", "literals": ["CELERY_APP=shop"]}],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(tree))
    done = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    return list(yaml.safe_load_all(done.stdout))


def is_valid(resource: Mapping[str, Any], version: str) -> None:
    """
    Hold *resource* against the schema of a version of Kubernetes, in which every key has to be known.
    """
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="It has the schemas.")
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_every_resource_is_valid(version: str) -> None:
    """
    From the first Kubernetes with native sidecars on.
    """
    for resource in RESOURCES.values():
        if resource["kind"] not in CUSTOM:
            is_valid(resource, version)


@pytest.mark.parametrize("components", [(), ("pod-monitor", "keda"), ("pod-monitor", "hpa"), ("second-container",)], ids="+".join)
def test_the_parts_fit_together(tmp_path: Path, components: tuple[str, ...]) -> None:
    """
    An overlay with one's own image and app is made of the base and any of the components, and is valid, before native sidecars, too.
    """
    resources = composed(tmp_path, *components)

    for resource in resources:
        if resource["kind"] not in CUSTOM:
            is_valid(resource, "1.28" if "second-container" in components else "1.29")
    containers = [container for resource in resources for container in containers_of(resource)]
    assert {"registry.example.com/shop:1.4.2"} == {container["image"] for container in containers}
    [config] = [resource for resource in resources if resource["kind"] == "ConfigMap"]
    assert "shop" == config["data"]["CELERY_APP"]
    assert {config["metadata"]["name"]} == {source["configMapRef"]["name"] for container in containers for source in container["envFrom"]}


def containers_of(resource: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return the containers of a deployment's pods, sidecars included.
    """
    if resource["kind"] != "Deployment":
        return []
    pod = resource["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_before_native_sidecars_there_is_a_second_container(tmp_path: Path) -> None:
    """
    The fallback has the same two containers, with nothing in front of them and no key that old versions would refuse.
    """
    pods = [resource["spec"]["template"]["spec"] for resource in composed(tmp_path, "second-container") if resource["kind"] == "Deployment"]

    assert 2 == len(pods)
    for pod in pods:
        assert "initContainers" not in pod
        assert "metrics" in {container["name"] for container in pod["containers"]}
        assert not any("restartPolicy" in container for container in pod["containers"])


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_pods_may_do_little(name: str) -> None:
    """
    No root, no privileges, no token, a file system that is read only but for two folders, and a limit of memory.
    """
    pod = DEPLOYMENTS[name]["spec"]["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
    assert pod["automountServiceAccountToken"] is False
    for container in containers_of(DEPLOYMENTS[name]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    assert all("emptyDir" in volume and volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"])


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_the_sidecar_reads_where_the_worker_writes(name: str) -> None:
    """
    Both have the same folder under the same name, and secrets come from a secret.
    """
    containers = containers_of(DEPLOYMENTS[name])

    [folder] = {mount["mountPath"] for container in containers for mount in container["volumeMounts"] if mount["name"] == "metrics"}
    assert f"CELERY_OBS_METRICS_DIR={folder}" in loaded(FOLDER / "base/kustomization.yaml")["configMapGenerator"][0]["literals"]
    assert all("secretKeyRef" in variable["valueFrom"] for container in containers for variable in container["env"])


def test_only_the_monitoring_may_ask_the_sidecars() -> None:
    """
    The network policy and the pod monitor are about the pods that there are, and about the port that the sidecars have.
    """
    labels = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in DEPLOYMENTS.values()]
    chosen = [RESOURCES["network-policy"]["spec"]["podSelector"], RESOURCES["pod-monitor"]["spec"]["selector"]]
    [rule] = RESOURCES["network-policy"]["spec"]["ingress"]
    [endpoint] = RESOURCES["pod-monitor"]["spec"]["podMetricsEndpoints"]

    assert all(selector["matchLabels"].items() <= pod.items() for selector, pod in itertools.product(chosen, labels))
    assert [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}] == rule["from"]
    assert ["metrics"] == [port["port"] for port in rule["ports"]]
    assert "metrics" == endpoint["port"]
    ports = [port["name"] for deployment in DEPLOYMENTS.values() for each in containers_of(deployment) for port in each.get("ports", [])]
    assert ["metrics"] * len(DEPLOYMENTS) == ports


def test_the_pod_monitor_names_the_job_as_the_rules_know_it() -> None:
    """
    Without the relabeling the operator would call the job after the pod monitor and its namespace, and alerts would look for another.
    """
    [endpoint] = RESOURCES["pod-monitor"]["spec"]["podMetricsEndpoints"]

    assert [("job", JOB)] == [(rule["targetLabel"], rule["replacement"]) for rule in endpoint["relabelings"]]
    assert endpoint["honorLabels"] is False
    assert {"sampleLimit", "labelLimit"} <= RESOURCES["pod-monitor"]["spec"].keys()


def test_keda_asks_for_what_there_is_and_takes_no_data_for_no_answer() -> None:
    """
    Its queries are right, its values are texts, and when Prometheus does not answer the workers stay.
    """
    spec = RESOURCES["scaled-object"]["spec"]

    for trigger in spec["triggers"]:
        assert [] == problems(trigger["metadata"]["query"], KNOWN)
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert "false" == trigger["metadata"]["ignoreNullValues"]
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    assert spec["scaleTargetRef"]["name"] == DEPLOYMENTS["worker"]["metadata"]["name"]


def test_the_autoscaler_reads_the_queue_once() -> None:
    """
    The queue's depth is external to the pods, and the same scale as KEDA's: workers come from a thousand messages on.
    """
    [metric] = RESOURCES["horizontal-pod-autoscaler"]["spec"]["metrics"]
    external = metric["external"]

    assert "External" == metric["type"]
    assert external["metric"]["name"] in KNOWN
    assert external["metric"]["selector"]["matchLabels"].keys() <= KNOWN[external["metric"]["name"]].labels
    assert external["target"]["averageValue"] == RESOURCES["scaled-object"]["spec"]["triggers"][0]["metadata"]["threshold"]
