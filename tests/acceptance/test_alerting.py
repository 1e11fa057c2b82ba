"""
From a channel's breaker to somebody's telephone: the sidecar, Prometheus and Alertmanager as they are shipped, and a receiver that plays Slack and PagerDuty.
"""

from __future__ import annotations

import re
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_obs.generate.links import JOB
from tests.acceptance.conftest import Exporter
from tests.monitoring import AlertmanagerServer, PrometheusServer, Receiver, quickly
from tests.servers import RedisServer, wait_until


pytestmark = pytest.mark.integration

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def redis_url() -> Iterator[str]:
    """
    The cluster's Redis.
    """
    with RedisServer() as server:
        yield server.url


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """
    Plays Slack and PagerDuty.
    """
    with Receiver() as receiver:
        yield receiver


def breaker(action: str, redis_url: str) -> None:
    """
    Do to airbnb's breaker what an operator would.
    """
    command = [
        sys.executable,
        "-m",
        "celery_obs.cli",
        "breaker",
        action,
        "airbnb",
        "--new",
        "--reason",
        "a drill",
        f"--redis-url={redis_url}",
    ]
    subprocess.run(command, check=True, capture_output=True)


def alertmanager_config(folder: Path, receiver: Receiver) -> dict[str, Any]:
    """
    Return the shipped configuration with other addresses and less patience.
    """
    (folder / "slack-url").write_text(f"{receiver.url}/slack")
    (folder / "pagerduty-key").write_text("0" * 32)
    text = (DEPLOY / "alertmanager/alertmanager.yml").read_text().replace("/etc/alertmanager/secrets", str(folder))
    text = text.replace("https://dead-mans-switch.example.com", receiver.url)
    text = re.sub(r"group_(wait|interval): .*", r"group_\1: 1s", text)
    config: dict[str, Any] = yaml.safe_load(text)
    config["global"]["pagerduty_url"] = f"{receiver.url}/v2/enqueue"
    config["templates"] = [str(DEPLOY / "alertmanager/templates/*.tmpl")]
    return config


def prometheus_config(exporter: Exporter, alertmanager: AlertmanagerServer) -> dict[str, Any]:
    """
    Return the shipped configuration with other addresses and less patience.
    """
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager.port}"]
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == JOB]
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{exporter.port}"]
    return config | {"scrape_configs": [job]}


def test_an_open_breaker_reaches_slack_and_pagerduty_and_so_does_its_end(tmp_path: Path, redis_url: str, receiver: Receiver) -> None:
    """
    A channel that is cut off wakes somebody, with what it is about, the runbook and the dashboard; when it is back, that incident is resolved.
    """
    (tmp_path / "metrics").mkdir()
    exporter = Exporter(f"--redis-url={redis_url}", "--lease-period=1", metrics_dir=tmp_path / "metrics", log=tmp_path / "exporter.log")
    rules = quickly(
        [DEPLOY / "prometheus/rules" / name for name in ("alerts-circuit-breaker.yml", "alerts-ourselves.yml")],
        tmp_path / "rules",
        instead={"[2m]": "[3s]", "for: 5m": "for: 1s"},
    )
    breaker("open", redis_url)

    # With windows of seconds, others may fire, too, before the first scrape.
    def incidents() -> list[Any]:
        return [told for told in receiver.on("/v2/enqueue") if "Circuit breaker" in told["payload"]["summary"]]

    def messages() -> list[Any]:
        return [told for told in receiver.on("/slack") if "Circuit breaker" in told["attachments"][0]["title"]]

    with (
        exporter,
        AlertmanagerServer(tmp_path, config=alertmanager_config(tmp_path, receiver)) as alertmanager,
        PrometheusServer(tmp_path, rules=rules, config=prometheus_config(exporter, alertmanager)),
    ):
        wait_until(lambda: incidents() and messages(), within=60, what="the alert")
        wait_until(lambda: receiver.on("/ping"), what="the watchdog at the dead man's switch")
        breaker("close", redis_url)
        wait_until(lambda: "resolve" in [told["event_action"] for told in incidents()], within=60, what="its end")

    begun, ended = incidents()[0], incidents()[-1]
    assert "[FIRING:1] Circuit breaker OPEN for airbnb" == begun["payload"]["summary"]
    assert "critical" == begun["payload"]["severity"]
    assert begun["dedup_key"] == ended["dedup_key"]
    assert begun["payload"]["custom_details"]["runbook"].endswith("/ChannelCircuitBreakerOpen.md")
    assert begun["client_url"].endswith("/d/channel-manager-platform?var-channel_type=airbnb")
    assert "[FIRING:1] Circuit breaker OPEN for airbnb" == messages()[0]["attachments"][0]["title"]
    assert (DEPLOY.parent / "docs/runbooks/ChannelCircuitBreakerOpen.md").is_file()
