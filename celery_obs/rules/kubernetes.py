"""
What other builders made, as Kubernetes takes it: rules in resources of the Prometheus operator, dashboards in config maps.

A resource has the very text of the file of rules that promtool has read, so that both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

from .render import Output, marked
from .yaml_text import Tree, to_yaml


__all__ = ["DASHBOARDS", "RULES", "derive"]


RULES: Final = PurePosixPath("deploy/kubernetes/components/prometheus-rule")
"""
The component with the rules.
"""

DASHBOARDS: Final = PurePosixPath("deploy/grafana")
"""
What the component with the dashboards takes in: kustomize reads no file outside the folder in which it is told to.
"""

_SOURCE: Final = "celery_obs/rules/kubernetes"
_LABELS: Final[dict[str, Tree]] = {"app.kubernetes.io/part-of": "celery-obs"}
_FILES_OF_RULES: Final = PurePosixPath("deploy/prometheus/rules")

_ABOUT_RULES: Final = """\
# For the Prometheus operator: recording rules, alerts and objectives.
# It takes the rules that carry the labels which its Prometheus selects by (spec.ruleSelector), often the name of the Helm release.
# Say them in your overlay, which gives them to the pod monitor, too:
#
#   labels: [{pairs: {release: kube-prometheus-stack}}]
"""

_ABOUT_DASHBOARDS: Final = """\
# One config map a dashboard, with the label that the sidecar of Grafana's Helm chart looks for.
"""


def derive(made: Iterable[Output]) -> Iterator[Output]:
    """
    Wrap those files of *made* that are rules or dashboards.
    """
    known = tuple(made)
    rules = [output for output in known if PurePosixPath(output.path).parent == _FILES_OF_RULES]
    dashboards = [output for output in known if PurePosixPath(output.path).parent == DASHBOARDS / "dashboards"]
    if rules:
        yield from _resources(rules)
    if dashboards:
        yield _config_maps(dashboards)


def _resources(files: Iterable[Output]) -> Iterator[Output]:
    resources = {f"{PurePosixPath(output.path).stem}.yaml": output for output in files}
    for name, output in resources.items():
        yield Output(str(RULES / name), _wrapped(PurePosixPath(name).stem, output.text))
    kustomization: dict[str, Tree] = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": sorted(resources),
    }
    yield Output(str(RULES / "kustomization.yaml"), marked(_SOURCE, f"{_ABOUT_RULES}{to_yaml(kustomization)}"))


def _wrapped(name: str, text: str) -> str:
    """
    Put the groups of a file of rules into a resource, below the file's own first lines.
    """
    comments, _, groups = text.partition("\ngroups:")
    # The label stands here: one that a component gives, everything else in the user's overlay would get, too.
    metadata: dict[str, Tree] = {"name": f"celery-obs-{name}", "labels": _LABELS}
    head = to_yaml({"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata})
    indented = "\n".join(f"  {line}" if line else line for line in f"groups:{groups}".split("\n"))
    return f"{comments}\n{head}spec:\n{indented}"


def _config_maps(files: Iterable[Output]) -> Output:
    names = sorted(PurePosixPath(output.path).name for output in files)
    kustomization: dict[str, Tree] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "labels": [{"pairs": _LABELS}],
        "generatorOptions": {"disableNameSuffixHash": True, "labels": {"grafana_dashboard": "1"}},
        "configMapGenerator": [{"name": f"dashboard-{PurePosixPath(name).stem}", "files": [f"dashboards/{name}"]} for name in names],
    }
    return Output(str(DASHBOARDS / "kustomization.yaml"), marked(_SOURCE, f"{_ABOUT_DASHBOARDS}{to_yaml(kustomization)}"))
