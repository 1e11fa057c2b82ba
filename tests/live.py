"""
Everything at once, and all of it real: the demo, the exporters beside it, Prometheus with the configuration, the rules and the aliases that we ship,
Alertmanager with the shipped routes, and a receiver that plays Slack and PagerDuty.

Only addresses, intervals and waiting times differ from what is shipped.
"""

from __future__ import annotations

import contextlib
import re

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from celery_obs.areas.channels.breakers import metrics as circuit_breaker
from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.rules.links import JOB
from tests.conftest import find_server
from tests.demo import ROOT, Demo
from tests.monitoring import AlertmanagerServer, NodeExporter, PrometheusServer, Receiver, RedisExporter, quickly
from tests.servers import free_port, wait_until


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["DEPLOY", "LiveStack", "alertmanager_config", "prometheus_config"]


DEPLOY = ROOT / "deploy"

_BREAKERS = "alerts-circuit-breaker.yml"
_SCRAPES = "2s"


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


def prometheus_config(*, exporter: int, alertmanager: int, itself: int, every: str = _SCRAPES) -> dict[str, Any]:
    """
    Return the shipped configuration with other ports and less patience.
    """
    text = (DEPLOY / "prometheus/prometheus.yml").read_text()
    for shipped, port in ((19540, exporter), (9093, alertmanager), (9090, itself)):
        assert f'"localhost:{shipped}"' in text
        text = text.replace(f'"localhost:{shipped}"', f'"127.0.0.1:{port}"')
    config: dict[str, Any] = yaml.safe_load(text)
    config["global"] |= {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    return config


class LiveStack:
    """
    The whole of it, as a context manager; on leaving, everything is stopped in the reverse order, whatever happened.

    The demo's exporter and Prometheus itself, Alertmanager, a node_exporter and a redis_exporter are scraped, each under the job that it has in the
    shipped configuration.  Windows of rules are as shipped; only those of the breakers' alerts are seconds.

    Args:
        folder: For the files of all.

    Attributes:
        demo: What is observed.

        prometheus, alertmanager: Who observes, and who tells.

        receiver: Who is told.
    """

    demo: Demo
    prometheus: PrometheusServer
    alertmanager: AlertmanagerServer
    node: NodeExporter
    redis: RedisExporter
    receiver: Receiver

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for program in ("redis-server", *(each.program for each in (PrometheusServer, AlertmanagerServer, NodeExporter, RedisExporter))):
            find_server(program)
        with contextlib.ExitStack() as starting:
            self._start(starting)
            self._running = starting.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._running.close()

    def _start(self, starting: contextlib.ExitStack) -> None:
        self.demo = starting.enter_context(Demo(self._made("demo")))
        self.node = starting.enter_context(NodeExporter(self._folder))
        wait_until(self._demo_tells, within=60, what="the demo to tell what it started")
        self.redis = starting.enter_context(RedisExporter(self._folder, redis_url=self.demo.redis_url()))
        self.receiver = starting.enter_context(Receiver())
        config = alertmanager_config(self._folder, self.receiver)
        self.alertmanager = starting.enter_context(AlertmanagerServer(self._folder, config=config))
        self.prometheus = starting.enter_context(self._prometheus())

    def _demo_tells(self) -> bool:
        assert self.demo.process.is_alive(), self.demo.process.tail()
        return "Stop with Ctrl-C" in self.demo.process.log.read_text()

    def _prometheus(self) -> PrometheusServer:
        shipped = {path.name: path for kind in ("rules", "aliases") for path in sorted((DEPLOY / "prometheus" / kind).glob("*.yml"))}
        hurried = quickly([shipped.pop(_BREAKERS)], self._folder / "hurried", instead={"[2m]": "[5s]", "for: 5m": "for: 2s"})
        rules = quickly(shipped.values(), self._folder / "rules", every="5s")
        # Neighbours are found as on any machine: by files beside the configuration.
        targets = self._made("targets")
        for job, server in (("node", self.node), ("redis", self.redis)):
            (targets / f"{job}.yml").write_text(yaml.safe_dump([{"targets": [f"127.0.0.1:{server.port}"]}]))
        port = free_port()
        config = prometheus_config(exporter=self.demo.port, alertmanager=self.alertmanager.port, itself=port)
        return PrometheusServer(self._folder, rules=[*rules, *hurried], config=config, port=port)

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def begin(self) -> None:
        """
        Wait until every target was scraped, tasks are counted, and every channel's breaker is known.
        """
        wait_until(lambda: set(self.prometheus.targets().values()) == {"up"}, within=60, what="all targets to be up")
        for what in (
            f"sum(rate({tasks.FINISHED.name}[1m])) > 0",
            f"count({circuit_breaker.STATE.name}) > 2",
            f'{queues.DEPTH.name}{{job="{JOB}"}}',
        ):
            wait_until(lambda: self.prometheus.rows(what), within=60, what=what)  # noqa: B023 -- called at once.

    def break_channel(self, channel: str) -> None:
        """
        Let every call of a channel's calendars fail until it is mended, as the line on the demo's screen does.
        """
        fault = {"kind": "outage", "path": f"/{channel}/listings"}
        httpx.post(f"{self.demo.provider_url()}/admin/faults", json=fault, trust_env=False).raise_for_status()

    def mend_channel(self, channel: str) -> None:
        """
        Let a channel answer again.
        """
        path = f"/{channel}/listings"
        httpx.delete(f"{self.demo.provider_url()}/admin/faults", params={"path": path}, trust_env=False).raise_for_status()
