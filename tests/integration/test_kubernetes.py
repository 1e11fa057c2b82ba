"""
What lies under deploy/kubernetes: valid for the oldest and the newest Kubernetes that we say, and of one mind with the rest.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import re
import shutil
import subprocess
import sys

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from celery_obs.areas.queues.announcements import DEFAULT_PRIORITY_STEPS, DEFAULT_SEPARATOR
from celery_obs.cli import probe
from celery_obs.cli.group import obs
from celery_obs.rules.links import DASHBOARDS, JOB
from tests.conftest import find_server
from tests.queries import problems
from tests.unit.rules.shipped import KNOWN


pytestmark = pytest.mark.integration

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDER = DEPLOY / "kubernetes"
PAGE = DEPLOY.parent / "docs/how-to/run-on-kubernetes.md"
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}
"""
Kinds that Kubernetes itself does not know.
"""

LIMITS = {"sampleLimit": "sample_limit", "labelLimit": "label_limit", "bodySizeLimit": "body_size_limit"}
"""
The operator's names of what Prometheus calls otherwise.
"""

OVERLAYS = [
    (),
    ("pod-monitor", "prometheus-rule", "grafana-dashboards", "keda"),
    ("pod-monitor", "prometheus-rule", "hpa"),
    ("keda-redis",),
    ("second-container", "pod-monitor", "keda"),
]
"""
Components as one takes them together.
"""


def loaded(path: Path) -> dict[str, Any]:
    """
    Read one document.
    """
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


RESOURCES = {str(path.relative_to(FOLDER)): loaded(path) for path in sorted(FOLDER.rglob("*.yaml")) if path.name != "kustomization.yaml"}
DEPLOYMENTS = {path: resource for path, resource in RESOURCES.items() if resource["kind"] == "Deployment"}
NETWORK_POLICY = RESOURCES["base/network-policy.yaml"]
POD_MONITOR = RESOURCES["components/pod-monitor/pod-monitor.yaml"]
KEDA = RESOURCES["components/keda/scaled-object.yaml"]
KEDA_REDIS = RESOURCES["components/keda-redis/scaled-object.yaml"]
AUTOSCALER = RESOURCES["components/hpa/horizontal-pod-autoscaler.yaml"]
ADAPTER = loaded(FOLDER / "components/hpa/prometheus-adapter-values.yml")


def kustomize() -> list[str]:
    """
    Return the command that puts parts together: kustomize, or a kubectl with one inside that knows components.
    """
    if shutil.which("kustomize") is None and shutil.which("kubectl") is not None:
        # Those of Kubernetes 1.20, as Debian 12 has it, have kustomize 2 inside and do not tell.
        said = subprocess.run(["kubectl", "version", "--client", "--output=json"], capture_output=True, text=True, check=False).stdout
        if "kustomizeVersion" in said:
            return ["kubectl", "kustomize"]
    return [find_server("kustomize"), "build"]


Composed = Callable[..., list[dict[str, Any]]]
"""
Returns what comes of the base and the components that are named, as a user's overlay would have them.
"""


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Composed:
    """
    Return what makes overlays, each once.
    """
    folder = tmp_path_factory.mktemp("overlays")
    shutil.copytree(DEPLOY, folder / "deploy")

    @functools.cache
    def compose(*components: str) -> list[dict[str, Any]]:
        tree = {
            "resources": ["../base"],
            "components": [f"../components/{name}" for name in components],
            "images": [{"name": "my-app", "newName": "registry.example.com/shop", "newTag": "1.4.2"}],
            "configMapGenerator": [{"name": "celery", "behavior": "merge", "literals": ["CELERY_APP=shop"]}],
            "labels": [{"pairs": {"release": "kube-prometheus-stack"}}],
        }
        return built(folder / "deploy/kubernetes" / "-".join(["overlay", *components]), yaml.safe_dump(tree))

    return compose


def built(overlay: Path, text: str) -> list[dict[str, Any]]:
    """
    Return what comes of an overlay that says *text*; it may cause no word of warning.
    """
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(text)
    done = subprocess.run([*kustomize(), overlay], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    return list(yaml.safe_load_all(done.stdout))


def is_valid(resource: Mapping[str, Any], version: str) -> None:
    """
    Hold *resource* against the schema of a version of Kubernetes, in which every key has to be known.
    """
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="It has the schemas.")
    kubernetes_validate.validate(resource, version, strict=True)


Check = Callable[[Mapping[str, Any]], None]
"""
Raises, if a resource of one of our custom kinds is not what its definition says.
"""


@pytest.fixture(scope="module")
def is_as_defined() -> Check:
    """
    Return what holds custom resources against the models of their definitions; loading those takes seconds.
    """
    pydantic = pytest.importorskip("cloudcoil.pydantic", reason="It comes with the models.")
    # Each of thousands of models is else made at once, and not when it is wanted.
    pydantic.BaseModel.model_config["defer_build"] = True
    operator = pytest.importorskip("cloudcoil.models.prometheus_operator.v1", reason="It has the models of the Prometheus operator.")
    keda = pytest.importorskip("cloudcoil.models.keda.v1alpha1", reason="It has the models of KEDA.")
    models = {name: getattr(operator, name, None) or getattr(keda, name) for name in CUSTOM}

    def check(resource: Mapping[str, Any]) -> None:
        if resource["kind"] == "ScaledObject":
            resource = _as_of_keda_216(resource)
        model = models[resource["kind"]].model_validate(resource, strict=True, by_alias=True, by_name=False)
        # A key that is not in the definition gets lost on the way.
        assert resource == model.model_dump(by_alias=True, exclude_unset=True, mode="json")

    return check


def _as_of_keda_216(resource: Mapping[str, Any]) -> dict[str, Any]:
    """
    Leave out what came with KEDA 2.17: models of later ones want a later Python than ours.
    """
    older: dict[str, Any] = copy.deepcopy(dict(resource))
    assert older["spec"]["fallback"].pop("behavior", "static") in {"static", "currentReplicasIfHigher"}
    return older


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_every_resource_is_valid(version: str) -> None:
    """
    From the first Kubernetes with native sidecars on.
    """
    for resource in RESOURCES.values():
        if resource["kind"] not in CUSTOM:
            is_valid(resource, version)


def test_the_validator_has_nothing_to_say() -> None:
    """
    Its command finds no resource of Kubernetes' own kinds that it does not know, which it would only mention.
    """
    pytest.importorskip("kubernetes_validate", reason="It has the schemas.")
    files = [FOLDER / path for path, resource in RESOURCES.items() if resource["kind"] not in CUSTOM]
    command: list[str | Path] = [sys.executable, "-m", "kubernetes_validate", "--strict", "--kubernetes-version=1.37", *files]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert not [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO")]


def test_every_custom_resource_is_as_defined(is_as_defined: Check) -> None:
    """
    The Prometheus operator and KEDA know every key of ours and every value.
    """
    found = [resource for resource in RESOURCES.values() if resource["kind"] in CUSTOM]

    assert CUSTOM == {resource["kind"] for resource in found}
    for resource in found:
        is_as_defined(resource)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("components/prometheus-rule/alerts-beat.yaml:spec.groups.0.interval", "half a minute", id="a duration"),
        pytest.param("components/prometheus-rule/alerts-beat.yaml:spec.groups.0.rules.0.for", "5 m", id="a duration with a space"),
        pytest.param("components/prometheus-rule/alerts-beat.yaml:spec.groups.0.rules.0.labels.team", 1, id="a label that is no text"),
        pytest.param("components/prometheus-rule/alerts-beat.yaml:spec.groups.0.rules.0.runbook", "https://x", id="a key of a rule"),
        pytest.param("components/pod-monitor/pod-monitor.yaml:spec.podMetricsEndpoints.0.interval", "15 s", id="an interval"),
        pytest.param("components/pod-monitor/pod-monitor.yaml:spec.podMetricsEndpoints.0.scrape_timeout", "10s", id="a key of an endpoint"),
        pytest.param("components/pod-monitor/pod-monitor.yaml:spec.podMetricsEndpoints.0.relabelings.0.action", "set", id="an action"),
        pytest.param("components/pod-monitor/pod-monitor.yaml:spec.sampleLimit", "200000", id="a number as a text"),
        pytest.param("components/pod-monitor/pod-monitor.yaml:spec.bodySizeLimit", "64 MB", id="a size"),
        pytest.param("components/keda/scaled-object.yaml:spec.triggers.0.metadata.threshold", 500, id="a text as a number"),
        pytest.param("components/keda/scaled-object.yaml:spec.minReplicas", 2, id="a key of a scaled object"),
        pytest.param("components/keda/scaled-object.yaml:spec.fallback", {"replicas": 4}, id="a part that is missing"),
        pytest.param("components/keda/scaled-object.yaml:spec.fallback.behavior", "currentReplicasIfhigher", id="a word"),
        pytest.param("components/keda-redis/trigger-authentication.yaml:spec.secretTargetRef.0.name", ["a"], id="a list as a text"),
    ],
)
def test_what_is_not_as_defined_is_found(is_as_defined: Check, path: str, value: object) -> None:
    """
    One wrong duration, key or type in a resource is refused.
    """
    file, _, keys = path.partition(":")
    resource = copy.deepcopy(RESOURCES[file])
    *way, last = (int(key) if key.isdigit() else key for key in keys.split("."))
    functools.reduce(lambda tree, key: tree[key], way, resource)[last] = value  # type: ignore[index]  # Digits are for lists.

    with pytest.raises((AssertionError, ValueError)):
        is_as_defined(resource)


@pytest.mark.parametrize("components", OVERLAYS, ids="+".join)
def test_the_parts_fit_together(composed: Composed, is_as_defined: Check, components: tuple[str, ...]) -> None:
    """
    An overlay with one's own image and app is made of the base and any of the components, and is valid, before native sidecars, too.
    """
    resources = composed(*components)

    for resource in resources:
        if resource["kind"] in CUSTOM:
            is_as_defined(resource)
        else:
            is_valid(resource, "1.28" if "second-container" in components else "1.29")
        assert "kube-prometheus-stack" == resource["metadata"]["labels"]["release"]
    containers = [container for resource in resources for container in containers_of(resource)]
    assert {"registry.example.com/shop:1.4.2"} == {container["image"] for container in containers}
    [config] = [resource for resource in resources if "CELERY_APP" in resource.get("data", {})]
    assert "shop" == config["data"]["CELERY_APP"]
    assert {config["metadata"]["name"]} == {source["configMapRef"]["name"] for container in containers for source in container["envFrom"]}


@pytest.mark.parametrize("components", [each for each in OVERLAYS if {"keda", "keda-redis", "hpa"} & {*each}], ids="+".join)
def test_an_autoscaler_alone_says_how_many_workers_there_are(composed: Composed, components: tuple[str, ...]) -> None:
    """
    With one, the deployment has no number: each apply would set the workers back to it.
    """
    resources = {(resource["kind"], resource["metadata"]["name"]): resource for resource in composed(*components)}

    assert "replicas" not in resources["Deployment", "celery-worker"]["spec"]
    assert 1 == resources["Deployment", "celery-beat"]["spec"]["replicas"]


def test_every_rule_and_dashboard_gets_there(composed: Composed) -> None:
    """
    Kustomize takes in all of them, each within what one object may hold.
    """
    resources = composed(*OVERLAYS[1])

    rules = [resource for resource in resources if resource["kind"] == "PrometheusRule"]
    maps = [resource for resource in resources if resource["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert len(list((DEPLOY / "prometheus/rules").glob("*.yml"))) == len(rules)
    assert set(DASHBOARDS) == {json.loads(text)["uid"] for resource in maps for text in resource["data"].values()}
    # kubectl apply keeps a copy in an annotation, for which there are 256 KiB.
    assert all(len(json.dumps(resource)) < 200 * 1024 for resource in [*rules, *maps])


def test_the_overlay_of_the_documentation_works(tmp_path: Path) -> None:
    """
    A copy of it has all that it speaks of, in one namespace and with the label by which the operator chooses.
    """
    [text] = re.findall(
        r"^```yaml\n# deploy/kubernetes/shop/kustomization.yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    shutil.copytree(DEPLOY, tmp_path / "deploy")

    resources = built(tmp_path / "deploy/kubernetes/shop", text)

    assert {"Deployment", "PodMonitor", "PrometheusRule", "ScaledObject"} <= {resource["kind"] for resource in resources}
    assert {("shop", "kube-prometheus-stack")} == {
        (resource["metadata"]["namespace"], resource["metadata"]["labels"]["release"]) for resource in resources
    }
    [config] = [resource for resource in resources if "CELERY_APP" in resource.get("data", {})]
    assert ("shop", "4", "celery,mail", "/run/celery_obs") == tuple(
        config["data"][name] for name in ("CELERY_APP", "CELERY_CONCURRENCY", "CELERY_QUEUES", "CELERY_OBS_METRICS_DIR")
    )


def test_the_documentation_names_every_component() -> None:
    """
    Each is in the page's table, and no other.
    """
    table = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)

    assert sorted(path.name for path in (FOLDER / "components").iterdir()) == sorted(table)


def containers_of(resource: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return the containers of a deployment's pods, sidecars included.
    """
    if resource["kind"] != "Deployment":
        return []
    pod = resource["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_before_native_sidecars_there_is_a_second_container(composed: Composed) -> None:
    """
    The fallback has the same two containers, with nothing in front of them and no key that old versions would refuse.
    """
    pods = [resource["spec"]["template"]["spec"] for resource in composed(*OVERLAYS[-1]) if resource["kind"] == "Deployment"]

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
    assert pod["enableServiceLinks"] is False
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
    Both have the same folder under the same name, the sidecar only to read, and secrets come from a secret.
    """
    [sidecar, other] = containers_of(DEPLOYMENTS[name])

    [theirs, ours] = [[mount for mount in each["volumeMounts"] if mount["name"] == "metrics"] for each in (sidecar, other)]
    assert [{"name": "metrics", "mountPath": "/run/celery_obs", "readOnly": True}] == theirs
    assert [{"name": "metrics", "mountPath": "/run/celery_obs"}] == ours
    assert "CELERY_OBS_METRICS_DIR=/run/celery_obs" in loaded(FOLDER / "base/kustomization.yaml")["configMapGenerator"][0]["literals"]
    assert all("secretKeyRef" in variable["valueFrom"] for container in (sidecar, other) for variable in container["env"])


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_every_command_and_every_variable_of_a_pod_exists(name: str) -> None:
    """
    What Kubernetes runs in a container is understood, and what it fills in is there.
    """
    known = {literal.partition("=")[0] for literal in loaded(FOLDER / "base/kustomization.yaml")["configMapGenerator"][0]["literals"]}

    commands = list(commands_of(DEPLOYMENTS[name]))
    ours = [command for command in commands if command[0] == "celery-obs"]
    assert known >= {variable for command in commands for word in command for variable in re.findall(r"\$\((\w+)\)", word)}
    assert {("exporter",), ("probe", "liveness"), ("probe", "readiness")} == {tuple(command[1:3]) for command in ours}
    for _, word, *rest in ours:
        if word == "probe":
            probe._parse(rest, {})
        else:
            found = obs.get_command(click.Context(obs), word)
            assert found is not None
            found.make_context(word, rest).close()


def commands_of(deployment: Mapping[str, Any]) -> Iterator[list[str]]:
    """
    Go through what Kubernetes runs for a deployment, probes included.
    """
    for container in containers_of(deployment):
        yield container["command"]
        yield from (container[key]["exec"]["command"] for key in container if key.endswith("Probe") and "exec" in container[key])


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_a_worker_has_time_to_come_and_to_go(name: str) -> None:
    """
    Imports have minutes, a broker that is away restarts no pod, and a heartbeat may be missed several times.
    """
    [_, container] = containers_of(DEPLOYMENTS[name])
    start, live = container["startupProbe"], container["livenessProbe"]

    assert 300 <= start["periodSeconds"] * start["failureThreshold"]
    assert "liveness" in start["exec"]["command"]
    assert "liveness" in live["exec"]["command"]
    assert "readiness" in container["readinessProbe"]["exec"]["command"]
    if "worker" in name:
        assert 600 <= DEPLOYMENTS[name]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_only_the_monitoring_may_ask_the_sidecars() -> None:
    """
    The network policy and the pod monitor are about the pods that there are, and about the port that the sidecars have.
    """
    labels = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in DEPLOYMENTS.values()]
    chosen = [NETWORK_POLICY["spec"]["podSelector"], POD_MONITOR["spec"]["selector"]]
    [rule] = NETWORK_POLICY["spec"]["ingress"]
    [endpoint] = POD_MONITOR["spec"]["podMetricsEndpoints"]

    assert all(selector["matchLabels"].items() <= pod.items() for selector, pod in itertools.product(chosen, labels))
    assert [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}] == rule["from"]
    ports = [port for deployment in DEPLOYMENTS.values() for each in containers_of(deployment) for port in each.get("ports", [])]
    assert [(endpoint["port"], rule["ports"][0]["port"])] * len(DEPLOYMENTS) == [(port["name"], port["containerPort"]) for port in ports]
    [address] = [
        each for each in loaded(FOLDER / "base/kustomization.yaml")["configMapGenerator"][0]["literals"] if "LISTEN_ADDRESS" in each
    ]
    assert address.endswith(f":{rule['ports'][0]['port']}")


def test_the_pod_monitor_scrapes_as_prometheus_is_told_to() -> None:
    """
    The rules know the job by one name, which the operator would make of the pod monitor's; what an exporter may bring is limited as everywhere.
    """
    [endpoint] = POD_MONITOR["spec"]["podMetricsEndpoints"]
    [job] = [job for job in loaded(DEPLOY / "prometheus/prometheus.yml")["scrape_configs"] if job["job_name"] == JOB]

    assert [("job", JOB)] == [(rule["targetLabel"], rule["replacement"]) for rule in endpoint["relabelings"]]
    assert endpoint["honorLabels"] is False
    assert {key: job[other] for key, other in LIMITS.items()} == {key: POD_MONITOR["spec"][key] for key in LIMITS}


def test_a_prometheus_without_an_operator_scrapes_the_same(tmp_path: Path) -> None:
    """
    Its job has the name, the limits and the choice of pods that the pod monitor has, and promtool accepts it.
    """
    path = FOLDER / "prometheus/scrape-pods.yml"
    [job] = loaded(path)["scrape_configs"]
    [endpoint] = POD_MONITOR["spec"]["podMetricsEndpoints"]
    assert (JOB, endpoint["interval"], endpoint["scrapeTimeout"]) == (job["job_name"], job["scrape_interval"], job["scrape_timeout"])
    assert {key: job[other] for key, other in LIMITS.items()} == {key: POD_MONITOR["spec"][key] for key in LIMITS}
    [label] = POD_MONITOR["spec"]["selector"]["matchLabels"].items()
    assert "=".join(label) == job["kubernetes_sd_configs"][0]["selectors"][0]["label"]
    assert endpoint["port"] == job["relabel_configs"][0]["regex"]

    (tmp_path / "prometheus.yml").write_text(f"scrape_config_files: [{path}]\n")
    command: list[str | Path] = [find_server("promtool"), "check", "config", tmp_path / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "field scrape_config_files not found" in done.stderr:
        return  # Debian 12 has 2.42, built without Kubernetes besides; `tox -e newer` has one that knows both.
    assert 0 == done.returncode, done.stdout + done.stderr


def test_keda_asks_for_what_there_is_and_takes_no_data_for_no_answer() -> None:
    """
    Its queries are right, its values are texts, and when Prometheus does not answer the workers stay.
    """
    spec = KEDA["spec"]

    for trigger in spec["triggers"]:
        assert [] == problems(trigger["metadata"]["query"], KNOWN)
        assert "false" == trigger["metadata"]["ignoreNullValues"]
    assert ["depth", "age", "busy"] == [trigger["name"] for trigger in spec["triggers"]]
    # KEDA has a fallback only for what is divided by the number of workers.
    assert "metricType" not in spec["triggers"][0]


def test_every_autoscaler_has_the_same_scale() -> None:
    """
    Another one gives as many workers as before.
    """
    depth, age, busy = (metric["external"]["target"] for metric in AUTOSCALER["spec"]["metrics"])

    for each in (KEDA["spec"], KEDA_REDIS["spec"]):
        assert each["minReplicaCount"] <= each["fallback"]["replicas"] <= each["maxReplicaCount"]
        # An outage of what KEDA asks takes no worker away.
        assert "currentReplicasIfHigher" == each["fallback"]["behavior"]
        assert (each["minReplicaCount"], each["maxReplicaCount"]) == (AUTOSCALER["spec"]["minReplicas"], AUTOSCALER["spec"]["maxReplicas"])
        assert each["scaleTargetRef"]["name"] == AUTOSCALER["spec"]["scaleTargetRef"]["name"]
        assert each["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == AUTOSCALER["spec"]["behavior"]
    thresholds = [trigger["metadata"]["threshold"] for trigger in KEDA["spec"]["triggers"]]
    assert [depth["averageValue"], age["value"], f"{int(busy['value'].removesuffix('m')) / 1000:g}"] == thresholds
    assert depth["averageValue"] == KEDA_REDIS["spec"]["advanced"]["scalingModifiers"]["target"]
    assert "celery-worker" == AUTOSCALER["spec"]["scaleTargetRef"]["name"] == DEPLOYMENTS["base/worker.yaml"]["metadata"]["name"]


def test_keda_adds_up_the_lists_that_kombu_keeps() -> None:
    """
    One list for each priority step, under the names that kombu gives them, and none is left out of the sum.
    """
    triggers = {trigger["name"]: trigger["metadata"]["listName"] for trigger in KEDA_REDIS["spec"]["triggers"]}

    assert [f"celery{DEFAULT_SEPARATOR}{step}" if step else "celery" for step in DEFAULT_PRIORITY_STEPS] == list(triggers.values())
    assert list(triggers) == KEDA_REDIS["spec"]["advanced"]["scalingModifiers"]["formula"].split(" + ")


def test_the_adapter_serves_what_the_autoscaler_reads() -> None:
    """
    Each external metric has a rule, whose query is right for the labels by which the autoscaler chooses, and whose series are always there.
    """
    rules = {rule["name"]["as"]: rule for rule in ADAPTER["rules"]["external"]}

    assert list(rules) == [metric["external"]["metric"]["name"] for metric in AUTOSCALER["spec"]["metrics"]]
    for metric in AUTOSCALER["spec"]["metrics"]:
        chosen = metric["external"]["metric"].get("selector", {}).get("matchLabels", {})
        rule = rules[metric["external"]["metric"]["name"]]
        matchers = ",".join(f'{label}="{value}"' for label, value in chosen.items())
        assert [] == problems(rule["metricsQuery"].replace("<<.LabelMatchers>>", matchers), KNOWN)
        assert rule["seriesQuery"] in {"celery_queue_depth", "celery_worker_pool_size"} & KNOWN.keys()
