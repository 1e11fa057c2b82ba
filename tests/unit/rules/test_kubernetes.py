"""
What Kubernetes gets is what Prometheus and Grafana get.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.rules import kubernetes, slo
from celery_obs.rules.links import Links
from celery_obs.rules.render import Output, marked, outputs
from celery_obs.rules.yaml_text import Tree, to_yaml
from tests.unit.rules.shipped import made_here
from tests.unit.rules.test_yaml_text import trees


def by_name(made: list[Output]) -> dict[str, dict[str, Any]]:
    """
    Read files, by their names.
    """
    return {
        PurePosixPath(output.path).name: yaml.load(output.text, Loader=yaml.CSafeLoader) for output in made
    }  # 100 KiB of rules take seconds without C.


@given(st.lists(trees, max_size=3), st.lists(st.sampled_from(["a: b", "groups:", "spec:"]), max_size=2))
@settings(max_examples=40)
def test_a_resource_has_the_rules_of_its_file(groups: list[Tree], comments: list[str]) -> None:
    """
    Whatever the rules are and the comments say, the operator reads the same groups as Prometheus.
    """
    text = marked("here", "".join(f"# {comment}\n" for comment in comments) + to_yaml({"groups": groups}))

    [resource, _] = kubernetes.derive([Output("deploy/prometheus/rules/alerts-x.yml", text)])

    found = yaml.safe_load(resource.text)
    assert yaml.safe_load(text) == found["spec"]
    assert ("PrometheusRule", "celery-obs-alerts-x") == (found["kind"], found["metadata"]["name"])
    assert text.partition("\n")[0] == resource.text.partition("\n")[0]


def test_every_file_of_rules_that_is_shipped_has_its_resource() -> None:
    """
    The component names all of them, and takes no aliases along.
    """
    made = [output for output in made_here() if output.path.endswith((".yml", ".yaml"))]
    rules = by_name([output for output in made if output.path.startswith("deploy/prometheus/rules/")])
    resources = by_name([output for output in made if output.path.startswith(f"{kubernetes.RULES}/")])

    component = resources.pop("kustomization.yaml")
    assert sorted(resources) == component["resources"]
    assert {name.replace(".yml", ".yaml"): tree for name, tree in rules.items()} == {
        name: resource["spec"] for name, resource in resources.items()
    }


def test_ones_own_objectives_and_links_are_in_the_resources_too() -> None:
    """
    They come of the files that were made, and not of those that are shipped.
    """
    links = Links(runbooks="https://runbooks.example.org")

    made = outputs(links, [slo.build])

    [resource] = [output for output in made if output.path == f"{kubernetes.RULES}/slo.yaml"]
    assert "https://runbooks.example.org/SLOErrorBudgetBurnFast.md" in resource.text


@pytest.mark.parametrize(
    "path", ["deploy/prometheus/aliases/aliases-x.yml", "docs/reference/alerts.md", "deploy/prometheus/prometheus.yml"]
)
def test_nothing_comes_of_other_files(path: str) -> None:
    """
    Where there are neither rules nor dashboards, such as without Grafana's SDK, what is there stays as it is.
    """
    assert [] == list(kubernetes.derive([Output(path, "groups: []\n")]))


def test_every_dashboard_becomes_a_config_map() -> None:
    """
    Each one its own, with the label that Grafana's sidecar looks for, and under a name that stays.
    """
    [output] = kubernetes.derive([Output(f"deploy/grafana/dashboards/{name}.json", "{}") for name in ("b", "a")])

    tree = yaml.safe_load(output.text)
    assert "deploy/grafana/kustomization.yaml" == output.path
    assert [("dashboard-a", ["dashboards/a.json"]), ("dashboard-b", ["dashboards/b.json"])] == [
        (each["name"], each["files"]) for each in tree["configMapGenerator"]
    ]
    assert {"disableNameSuffixHash": True, "labels": {"grafana_dashboard": "1"}} == tree["generatorOptions"]
