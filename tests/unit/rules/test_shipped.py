"""
The files that come with the package: all that the checkout has, and nothing on channels for those who have none.
"""

from __future__ import annotations

import re

from pathlib import Path

import pytest
import yaml

from celery_obs.exceptions import ConfigurationError
from celery_obs.rules import shipped as room
from celery_obs.rules.links import Links
from celery_obs.rules.render import Output
from celery_obs.rules.shipped import PARTS, alerts_in, is_about_channels, shipped


ROOT = Path(__file__).parents[3]
PRIVATE = {"secrets", ".env", "compose.override.yml"}
GENERAL = {output.path: output for output in shipped()}
ALL = {output.path: output for output in shipped(tuple(PARTS), channels=True)}


def test_every_file_of_the_checkout_is_shipped_as_it_is() -> None:
    """
    In a wheel or beside the package: the same paths, texts and rights to be run.
    """
    here = {
        path.relative_to(ROOT).as_posix(): (path.read_text(encoding="utf-8"), bool(path.stat().st_mode & 0o100))
        for top in ("deploy", "docs/runbooks")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and not PRIVATE & set(path.parts)
    }

    assert here == {output.path: (output.text, output.executable) for output in ALL.values()}


def test_every_file_belongs_to_a_part() -> None:
    """
    What lies in a folder that no part names would never be written.
    """
    assert {file.path for file in room._files()} == ALL.keys()


@pytest.mark.parametrize("folder", ["deploy/prometheus/rules/", "deploy/kubernetes/components/prometheus-rule/"])
def test_rules_for_all_name_no_channel(folder: str) -> None:
    """
    A file of rules is about channels as a whole, or not at all.
    """
    rules = {path: output.text for path, output in ALL.items() if path.startswith(folder) and "kustomization" not in path}

    assert {path for path, text in rules.items() if "channel" in text.lower()} == {path for path in rules if is_about_channels(path)}


def test_those_without_channels_get_none() -> None:
    """
    No file, alert, dashboard or list of them is about channels; what remains are labels by which alerts are grouped, and asides in runbooks.
    """
    assert not [path for path in GENERAL if "channel" in path.lower()]
    words = re.compile(r"channel(?!_type)", re.IGNORECASE)
    asides = ("docs/runbooks/", "deploy/grafana/dashboards/")
    found = {path for path, output in GENERAL.items() if words.search(output.text) and not path.startswith(asides)}
    # Slack's own word for a room, gRPC's for a connection, and why HTTPS is let out.
    assert {"deploy/alertmanager/alertmanager.yml", "deploy/otel/collector.yml", "deploy/kubernetes/base/network-policy.yaml"} == found
    assert "Channel" not in GENERAL["deploy/alertmanager/alertmanager.yml"].text


def test_each_alert_comes_with_its_runbook_and_each_runbook_with_its_alert() -> None:
    """
    With channels and without them.
    """
    for files in (GENERAL, ALL):
        alerts = {name for path, output in files.items() if path.startswith("deploy/prometheus/rules/") for name in alerts_in(output.text)}

        assert alerts == {Path(path).stem for path in files if path.startswith("docs/runbooks/")}


@pytest.mark.parametrize("files", [GENERAL, ALL], ids=["without channels", "with channels"])
def test_lists_name_what_is_there(files: dict[str, Output]) -> None:
    """
    kustomize refuses a list with a file that is missing.
    """
    folder = "deploy/kubernetes/components/prometheus-rule"
    rules = yaml.safe_load(files[f"{folder}/kustomization.yaml"].text)["resources"]
    dashboards = yaml.safe_load(files["deploy/grafana/kustomization.yaml"].text)["configMapGenerator"]

    assert {f"{folder}/{name}" for name in rules} == {path for path in files if path.startswith(folder)} - {f"{folder}/kustomization.yaml"}
    assert {f"deploy/grafana/{each['files'][0]}" for each in dashboards} == {
        path for path in files if path.startswith("deploy/grafana/dash")
    }


def test_alertmanager_loses_only_the_inhibitions_about_channels() -> None:
    """
    Both configurations are YAML, with the same routes and receivers.
    """
    path = "deploy/alertmanager/alertmanager.yml"
    without, whole = yaml.safe_load(GENERAL[path].text), yaml.safe_load(ALL[path].text)
    kept = [rule for rule in whole["inhibit_rules"] if not re.search(r"[\"=](?:All)?Channel", str(rule["source_matchers"]))]

    assert {**whole, "inhibit_rules": kept} == without
    assert 0 < len(kept) < len(whole["inhibit_rules"])


def test_alerts_lead_to_the_addresses_that_are_given() -> None:
    """
    In files of rules and in resources of Kubernetes; no example remains there.
    """
    made = shipped(("rules", "kubernetes"), links=Links(runbooks="https://wiki.example.org/r/", grafana="https://g.example.org"))
    rules = [output.text for output in made if "alerts-queues" in output.path]

    assert 2 == len(rules)
    for text in rules:
        assert "https://wiki.example.org/r/CeleryQueueBacklog.md" in text
        assert "https://g.example.org/d/celery-queues" in text
    assert not [output.path for output in made if ".example.com/d/" in output.text or "runbooks.example.com" in output.text]


def test_what_works_with_channels_only_brings_them() -> None:
    """
    Compose starts the demo, whose first page is that of its channels.
    """
    assert any(output.path.endswith("channel-manager-overview.json") for output in shipped(("compose",)))


def test_an_installation_without_the_files_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    It names both places where they could be, and what to do.
    """
    monkeypatch.setattr(room, "_IN_THE_WHEEL", tmp_path / "_shipped")
    monkeypatch.setattr(room, "_PACKAGE", tmp_path / "celery_obs")

    with pytest.raises(ConfigurationError, match="Install celery_obs again from its wheel"):
        shipped()


def test_what_people_keep_beside_the_files_is_not_among_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Passwords that `prepare` made in a checkout are written nowhere else.
    """
    for name in ("deploy/prometheus/rules/a.yml", "docs/runbooks/A.md", "deploy/compose/secrets/redis-password", "deploy/compose/.env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    monkeypatch.setattr(room, "_IN_THE_WHEEL", tmp_path)

    assert ["deploy/prometheus/rules/a.yml", "docs/runbooks/A.md"] == [file.path for file in room._files()]
