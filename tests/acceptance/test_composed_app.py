"""
The app as deploy/compose/compose.yml runs it: its very commands, environment and secrets, as processes of this machine on other ports and paths.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.composed import FOLDER, SERVICES, filled
from tests.otlp import Collector
from tests.servers import RedisServer, free_port, wait_until
from tests.workers import Process, samples_in


pytestmark = pytest.mark.integration

APP = ("demo-channels", "worker", "beat", "exporter", "demo-load")
PROGRAMS = {
    "celery": [sys.executable, "-m", "celery"],
    "celery-obs": [sys.executable, "-m", "celery_obs.cli"],
    "python": [sys.executable],
}


class Elsewhere:
    """
    Moves what a service is told to other ports and paths.
    """

    def __init__(self, folder: Path, collector: Collector) -> None:
        self.port = free_port()
        self._others = {
            "/run/celery_obs": str(folder / "metrics"),
            "/var/log/celery/%h": str(folder / "logs/worker"),
            "/var/log/celery": str(folder / "logs"),
            "/var/lib/celery-beat": str(folder / "beat"),
            "0.0.0.0:": "127.0.0.1:",
            "19540": str(self.port),
            "8080": str(free_port()),
            "8081": str(free_port()),
            "http://otel-collector:4318": collector.url,
        }

    def move(self, text: str) -> str:
        """
        Put what is here in the place of what is in the container.
        """
        for there, here in self._others.items():
            text = text.replace(there, here)
        return text

    def environ(self, service: dict[str, Any]) -> dict[str, str]:
        """
        Return what compose would give it: its files of variables, then its variables.
        """
        told: dict[str, str] = {}
        for file in service.get("env_file", ()):
            lines = (FOLDER / file["path"]).read_text().splitlines()
            told |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        told |= {name: str(value) for name, value in service.get("environment", {}).items()}
        return {name: self.move(value) for name, value in told.items()}

    def command(self, service: dict[str, Any]) -> list[str]:
        """
        Return its entry point and command, with programs of this machine.
        """
        program, *arguments = service["command"]
        return ["sh", str(FOLDER / "with-secrets"), *PROGRAMS[program], *(self.move(argument) for argument in arguments)]


class Composed(NamedTuple):
    """
    The running app.
    """

    folder: Path
    elsewhere: Elsewhere
    collector: Collector

    def lines(self, service: str) -> list[dict[str, Any]]:
        """
        Return what a service has logged so far, but for a line that is being written.
        """
        [path] = (self.folder / "logs").glob(f"{service}.log")
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """
    Start what the app is made of, in order, each with the secrets that are mounted into it and no others.
    """
    folder = tmp_path_factory.mktemp("composed")
    for name in ("metrics", "logs", "beat"):
        (folder / name).mkdir()
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(password="s3cret"))
        collector = stack.enter_context(Collector())
        elsewhere = Elsewhere(folder, collector)
        values = {
            "broker-url": redis.url_of(0),
            "redis-url": redis.url_of(1),
            "token-keys": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "webhook-secret": "s3cret",
        }
        for name in APP:
            secrets = folder / f"secrets-{name}"
            secrets.mkdir()
            for secret in SERVICES[name]["secrets"]:
                (secrets / secret["target"]).write_text(values[secret["source"]])
            environ = {
                "CELERY_OBS_LOGS": "1",
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                "SECRETS_DIR": str(secrets),
                **elsewhere.environ(SERVICES[name]),
            }
            stack.enter_context(Process(elsewhere.command(SERVICES[name]), log=folder / f"{name}.out", environ=environ, cwd=folder))
            if name == "demo-channels":  # The load waits for its health, here and there.
                wait_until(lambda: "http" in (folder / "demo-channels.out").read_text(), what="the fake channels")
        app = Composed(folder, elsewhere, collector)
        wait_until(lambda: _counts(app, "demo.fast") and _counts(app, "demo.export_availability"), within=60, what=f"tasks; see {folder}")
        yield app


def _counts(app: Composed, task: str) -> bool:
    try:
        page = httpx.get(
            f"http://127.0.0.1:{app.elsewhere.port}/metrics", headers={"Accept": "text/plain"}, trust_env=False, timeout=10
        ).text
    except httpx.HTTPError:
        return False
    found = samples_in(page, name="celery_task_finished_total")
    return any(value for (_, labels), value in found.items() if {("task", task), ("state", "success")} <= set(labels))


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_worker_and_beat_are_healthy(composed: Composed, name: str) -> None:
    """
    The check that compose runs in their containers says so.
    """
    script = filled(SERVICES[name]["healthcheck"]["test"][1])
    [node] = re.findall(r'--node "(\w+)@\$\(hostname\)"', script)
    arguments = [word for word in script.split("--node")[0].split() if word != "celery-obs"]
    command = [*PROGRAMS["celery-obs"], *arguments, "--node", f"{node}@{socket.gethostname()}"]
    environ = {**os.environ, "CELERY_OBS_METRICS_DIR": str(composed.folder / "metrics")}

    wait_until(lambda: subprocess.run(command, capture_output=True, check=False, env=environ).returncode == 0, what=f"{name} to be ready")


@pytest.mark.parametrize("name", ["exporter", "demo-channels", "demo-load"])
def test_the_others_are_healthy(composed: Composed, name: str) -> None:
    """
    So say the checks of those that listen.
    """
    _, program, *arguments = SERVICES[name]["healthcheck"]["test"]
    command = [*PROGRAMS[program], *map(composed.elsewhere.move, arguments)]

    wait_until(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0, what=f"{name} to be healthy")


def test_lines_have_what_the_collector_reads_off_them(composed: Composed) -> None:
    """
    Every line of worker and beat is JSON with a time in UTC and a level.
    """
    for service in ("worker", "beat"):
        wait_until(lambda service=service: composed.lines(service), what=f"lines of {service}")  # type: ignore[misc]  # mypy knows no defaults.
        for line in composed.lines(service):
            assert datetime.strptime(line["timestamp"], "%Y-%m-%dT%H:%M:%S.%f%z").utcoffset() is not None
            assert line["level"] in {"debug", "info", "warning", "error", "critical"}


def test_a_span_leads_to_its_lines(composed: Composed) -> None:
    """
    Spans come under the names that the files of lines have, and a line's trace is one that the worker has sent.
    """

    def services() -> set[str]:
        return {str(span.resource["service.name"]) for span in composed.collector.spans()}

    wait_until(lambda: services() == {"worker", "beat", "web"}, what="spans of all")
    traces = {line["trace_id"] for line in composed.lines("worker") if line.get("state") == "success"}
    wait_until(lambda: traces & {span.trace for span in composed.collector.spans() if span.resource["service.name"] == "worker"})

    assert {"compose"} == {span.resource["deployment.environment.name"] for span in composed.collector.spans()}
