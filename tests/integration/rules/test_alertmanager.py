"""
The shipped Alertmanager configuration on a real Alertmanager: who is told, of what, and what is not told twice.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_obs.rules.rules import SEVERITIES
from tests.monitoring import AlertmanagerServer, Receiver
from tests.servers import missing, wait_until
from tests.unit.rules.shipped import EVERY_ALERT


pytestmark = pytest.mark.integration

DEPLOY = Path(__file__).parents[3] / "deploy"
CONFIG = DEPLOY / "alertmanager/alertmanager.yml"
SHIPPED: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
LABELS = {alert.name: {*alert.by, *alert.labels} for alert in EVERY_ALERT}


def amtool(*arguments: str | Path) -> str:
    """
    Run amtool, and return what it said; it has to succeed.
    """
    if shutil.which("amtool") is None:
        missing("amtool")
    done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout.strip()


def test_amtool_accepts_the_configuration() -> None:
    """
    The configuration and its templates are valid.
    """
    assert "1 templates" in amtool("check-config", CONFIG)


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"severity": "critical"}, "pagerduty,slack-critical"),
        ({"severity": "warning"}, "slack-warning"),
        ({"severity": "info"}, "slack-info"),
        ({"severity": "none"}, "discarded"),
        ({"severity": "none", "alertname": "Watchdog"}, "dead-mans-switch"),
        ({"severity": "misspelt"}, "slack-warning"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
)
def test_each_severity_has_its_receivers(labels: dict[str, str], receivers: str) -> None:
    """
    Critical pages and is told on Slack, the rest is told where it belongs, and an unknown severity is told all the same.
    """
    assert receivers == amtool(
        "config", "routes", "test", f"--config.file={CONFIG}", *(f"{name}={value}" for name, value in labels.items())
    )


def test_each_severity_is_thought_of() -> None:
    """
    There is a route for every severity that an alert of ours can have.
    """
    matchers = [matcher for route in SHIPPED["route"]["routes"] for matcher in route["matchers"]]

    assert [] == [severity for severity in SEVERITIES if f'severity="{severity}"' not in matchers]


@pytest.mark.parametrize("rule", SHIPPED["inhibit_rules"], ids=lambda rule: re.findall(r'"(.*)"', rule["source_matchers"][0])[0])
def test_inhibitions_are_about_alerts_that_there_are(rule: dict[str, Any]) -> None:
    """
    What holds an alert back, and what is held back, are alerts of ours, each with the labels that have to be equal; no alert holds itself back.
    """
    [source], [target] = (re.findall(r'^alertname=~?"(.*)"$', rule[side][0]) for side in ("source_matchers", "target_matchers"))
    held = {name for name in LABELS if re.fullmatch(target, name)}

    assert source in LABELS
    assert held
    assert all(any(re.fullmatch(part, name) for name in LABELS) for part in target.split("|"))
    assert source not in held
    assert all(set(rule.get("equal", [])) <= LABELS[name] for name in {source, *held})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """
    Plays Slack, PagerDuty and the dead man's switch.
    """
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def alertmanager(tmp_path: Path, receiver: Receiver) -> Iterator[AlertmanagerServer]:
    """
    An Alertmanager with the shipped configuration, told other addresses and less patience.
    """
    (tmp_path / "slack-url").write_text(f"{receiver.url}/slack")
    (tmp_path / "pagerduty-key").write_text("0123456789abcdef0123456789abcdef")
    text = (
        CONFIG.read_text().replace("/etc/alertmanager/secrets", str(tmp_path)).replace("https://dead-mans-switch.example.com", receiver.url)
    )
    config = yaml.safe_load(re.sub(r"group_wait: .*", "group_wait: 0s", re.sub(r"group_interval: .*", "group_interval: 1s", text)))
    config["global"]["pagerduty_url"] = f"{receiver.url}/v2/enqueue"
    config["templates"] = [str(CONFIG.parent / "templates/*.tmpl")]
    with AlertmanagerServer(tmp_path, config=config) as server:
        yield server


def breaker_open(*, ended: bool = False, **more: str) -> dict[str, Any]:
    """
    Return the alert of an open breaker as Prometheus would send it.
    """
    now = dt.datetime.now(dt.timezone.utc)
    return {
        "labels": {"alertname": "ChannelCircuitBreakerOpen", "severity": "critical", "channel_type": "airbnb", **more},
        "annotations": {
            "summary": "Circuit breaker OPEN for airbnb",
            "description": "No call has gone through for 5 minutes.",
            "runbook_url": "https://runbooks.example.com/ChannelCircuitBreakerOpen.md",
            "dashboard_url": "https://grafana.example.com/d/channel-manager-platform?var-channel_type=airbnb",
        },
        "startsAt": (now - dt.timedelta(minutes=5)).isoformat(),
    } | ({"endsAt": (now - dt.timedelta(seconds=1)).isoformat()} if ended else {})


def test_an_outage_is_told_and_so_is_its_end(alertmanager: AlertmanagerServer, receiver: Receiver) -> None:
    """
    PagerDuty and Slack hear of an open breaker with title, runbook and dashboard; at its end PagerDuty resolves that same incident.
    """
    alertmanager.post("/api/v2/alerts", [breaker_open()])
    wait_until(lambda: receiver.on("/v2/enqueue") and receiver.on("/slack"), what="both to be told")
    alertmanager.post("/api/v2/alerts", [breaker_open(ended=True)])
    wait_until(lambda: len(receiver.on("/v2/enqueue")) > 1 and len(receiver.on("/slack")) > 1, what="both to be told of the end")

    begun, ended = receiver.on("/v2/enqueue")[0], receiver.on("/v2/enqueue")[-1]
    assert ("trigger", "resolve") == (begun["event_action"], ended["event_action"])
    assert begun["dedup_key"] == ended["dedup_key"]
    assert "0123456789abcdef0123456789abcdef" == begun["routing_key"]
    assert "[FIRING:1] Circuit breaker OPEN for airbnb" == begun["payload"]["summary"]
    assert ("critical", "ChannelCircuitBreakerOpen", "airbnb") == tuple(begun["payload"][key] for key in ("severity", "class", "group"))
    assert begun["payload"]["custom_details"]["runbook"].endswith("/ChannelCircuitBreakerOpen.md")
    assert begun["client_url"].endswith("/d/channel-manager-platform?var-channel_type=airbnb")

    [first], [last] = receiver.on("/slack")[0]["attachments"], receiver.on("/slack")[-1]["attachments"]
    assert "#celery-critical" == receiver.on("/slack")[0]["channel"]
    assert ("[FIRING:1] Circuit breaker OPEN for airbnb", "danger") == (first["title"], first["color"])
    assert ("[RESOLVED] Circuit breaker OPEN for airbnb", "good") == (last["title"], last["color"])
    assert first["title_link"].endswith("/ChannelCircuitBreakerOpen.md")
    assert ["Runbook", "Dashboard"] == [button["text"] for button in first["actions"]]
    assert "No call has gone through for 5 minutes." == first["text"].strip()


def test_a_consequence_is_held_back_on_its_own_channel_only(alertmanager: AlertmanagerServer) -> None:
    """
    While a channel's breaker is open its failing syncs are not told; another channel's failures are told.
    """
    failing = [breaker_open(alertname="ChannelSyncHighFailureRate", channel_type=channel) for channel in ("airbnb", "booking")]
    alertmanager.post("/api/v2/alerts", [breaker_open(), *failing])

    def states() -> dict[tuple[str, str], str]:
        return {
            (alert["labels"]["alertname"], alert["labels"]["channel_type"]): alert["status"]["state"] for alert in alertmanager.alerts()
        }

    expected = {
        ("ChannelCircuitBreakerOpen", "airbnb"): "active",
        ("ChannelSyncHighFailureRate", "airbnb"): "suppressed",
        ("ChannelSyncHighFailureRate", "booking"): "active",
    }
    wait_until(lambda: expected == states(), what="the consequence to be held back")


def test_the_watchdog_comes_again_and_again(alertmanager: AlertmanagerServer, receiver: Receiver) -> None:
    """
    The dead man's switch hears the alert that always fires, and no other receiver does.
    """
    watchdog = {"labels": {"alertname": "Watchdog", "severity": "none"}, "annotations": {"summary": "The alerting pipeline works"}}
    alertmanager.post("/api/v2/alerts", [watchdog])
    wait_until(lambda: receiver.on("/ping"), what="the dead man's switch")

    assert "firing" == receiver.on("/ping")[0]["status"]
    assert {"/ping"} == {told.path for told in receiver.received}


def test_many_alerts_of_one_kind_are_one_readable_message(alertmanager: AlertmanagerServer, receiver: Receiver) -> None:
    """
    Twelve tokens of one channel are one message, with ten of them named and the rest counted.
    """
    alerts = [breaker_open(alertname="ChannelTokenExpiringSoon", severity="warning", connection_id=f"c{number}") for number in range(12)]
    alertmanager.post("/api/v2/alerts", alerts)
    wait_until(lambda: any("FIRING:12" in message["attachments"][0]["title"] for message in receiver.on("/slack")), what="the message")

    [attachment] = receiver.on("/slack")[-1]["attachments"]
    assert 10 == attachment["text"].count("No call has gone through")
    assert attachment["text"].strip().endswith("and 2 more")
