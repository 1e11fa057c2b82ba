"""
Real servers of the monitoring: a private Prometheus, filled with what happened before it began, exporters beside ours, a private Alertmanager, and
whom it tells.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time

from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import yaml

from tests.servers import free_port, missing, wait_until


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = [
    "AlertmanagerServer",
    "NodeExporter",
    "Notification",
    "PrometheusServer",
    "Receiver",
    "RedisExporter",
    "Row",
    "Rule",
    "quickly",
    "without_variables",
]


class Row(NamedTuple):
    """
    One series of an answer, with its newest value.
    """

    labels: Mapping[str, str]
    value: float


class Rule(NamedTuple):
    """
    What Prometheus thinks of one of its rules.

    Attributes:
        group: The group that it stands in.

        name: Of the alert, or of what is recorded.

        labels: What it adds.

        is_alert: Whether it is one.

        health: ``ok``, ``err``, or ``unknown`` before it was evaluated.

        error: What went wrong the last time; empty if nothing did.

        seconds: What the last evaluation took.
    """

    group: str
    name: str
    labels: Mapping[str, str]
    is_alert: bool
    health: str
    error: str
    seconds: float


def quickly(rules: Iterable[Path], folder: Path, *, every: str = "1s", instead: Mapping[str, str] | None = None) -> list[Path]:
    """
    Copy rule files to *folder*, with groups that are evaluated every second: a test does not wait for a minute to pass.

    Args:
        rules: Their paths.

        folder: Where to; it is made.

        every: How often, where a second is too much for what they are.

        instead: What to put in the place of other texts, such as of longer windows.
    """
    folder.mkdir()
    copies = []
    for path in rules:
        text = path.read_text()
        for old, new in (instead or {}).items():
            text = text.replace(old, new)
        tree = yaml.safe_load(text)
        for group in tree["groups"]:
            group["interval"] = every
        copy = folder / path.name
        copy.write_text(yaml.safe_dump(tree))
        copies.append(copy)
    return copies


_DURATIONS = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m"}


def without_variables(expr: str, values: Mapping[str, str] | None = None) -> str:
    """
    Put durations and texts in the place of Grafana's variables, so that *expr* is PromQL.
    """
    for name, duration in _DURATIONS.items():
        expr = expr.replace(name, duration)
    return re.sub(r"\$([a-z_]+)", lambda match: (values or {}).get(match[1], ".*"), expr)


class _Server:
    """
    A program with a port on loopback, a folder, and a log in it.
    """

    program = ""
    ready = "/-/ready"

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._web = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def command(self) -> list[str]:
        """
        Say what to run, after writing what it reads.
        """
        raise NotImplementedError

    def __enter__(self) -> Self:
        if shutil.which(self.program) is None:
            missing(self.program)
        with self._log.open("wb") as sink:
            self._child = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
        try:
            wait_until(self._is_ready, what=f"{self.program}; its log is {self._log}")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """
        Make it go, whatever state it is in.
        """
        self._web.close()
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()
        child.wait()

    def get(self, path: str, **parameters: str) -> bytes:
        """
        Return what is at *path*.
        """
        return self._web.get(path, params=parameters).raise_for_status().content

    def post(self, path: str, value: object) -> None:
        """
        Send *value* as JSON.
        """
        self._web.post(path, json=value).raise_for_status()

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.program}.log"

    def _is_ready(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            message = f"{self.program} went at once:\n{self._log.read_text()[-2000:]}"
            raise RuntimeError(message)
        try:
            return bool(self.get(self.ready))
        except httpx.HTTPError:
            return False


class PrometheusServer(_Server):
    """
    A Prometheus of one's own.

    Args:
        folder: For its data, configuration and log.

        past: What it knows from before, as OpenMetrics with timestamps.

        rules: Files of rules that it evaluates.

        config: More of its configuration.

        port: Where it listens, where that is said in its configuration; else any free one.
    """

    program = "prometheus"

    def __init__(
        self, folder: Path, *, past: str = "", rules: Iterable[Path] = (), config: Mapping[str, Any] | None = None, port: int = 0
    ) -> None:
        super().__init__(folder, port=port)
        self._past = past
        self._config = {**(config or {}), "rule_files": [str(path) for path in rules]}

    def command(self) -> list[str]:
        """
        Write its configuration and its past.
        """
        config, data, past = (self._folder / name for name in ("prometheus.yml", "data", "past.om"))
        config.write_text(yaml.safe_dump(self._config))
        if self._past:
            past.write_text(self._past)
            subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", past, data], check=True, capture_output=True)
        return [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--storage.tsdb.retention.time=45d",
            # What it says before it has found its Alertmanager is lost, and would be said again a minute later.
            "--rules.alert.resend-delay=1s",
        ]

    def rows(self, expr: str) -> list[Row]:
        """
        Evaluate *expr* now.
        """
        return [Row(row["metric"], float(row["value"][1])) for row in self._ask("query", query=expr)]

    def course(self, expr: str, *, back: float = 600.0, step: float = 60.0) -> list[Row]:
        """
        Evaluate *expr* over the last while; each series with its newest value.
        """
        now = time.time()
        found = self._ask("query_range", query=expr, start=str(now - back), end=str(now), step=str(step))
        return [Row(row["metric"], float(row["values"][-1][1])) for row in found]

    def all_rules(self) -> list[Rule]:
        """
        Return every rule that it has loaded, with what became of its last evaluation.
        """
        groups = json.loads(self.get("/api/v1/rules"))["data"]["groups"]
        return [
            Rule(
                group=group["name"],
                name=rule["name"],
                labels=rule.get("labels", {}),
                is_alert=rule["type"] == "alerting",
                health=rule["health"],
                error=rule.get("lastError", ""),
                seconds=rule["evaluationTime"],
            )
            for group in groups
            for rule in group["rules"]
        ]

    def targets(self) -> dict[str, str]:
        """
        Return how each target is, by its job: ``up``, ``down`` or ``unknown``.
        """
        active = json.loads(self.get("/api/v1/targets", state="active"))["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in active}

    def _ask(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        answer = json.loads(self.get(f"/api/v1/{what}", **parameters))
        result = answer["data"]["result"]
        # A bare number has no series; it stands for one without labels.
        return [{"metric": {}, "value": result}] if answer["data"]["resultType"] == "scalar" else result


class AlertmanagerServer(_Server):
    """
    An Alertmanager of one's own, without neighbours.

    Args:
        folder: For its data, configuration and log.

        config: All of its configuration.
    """

    program = "prometheus-alertmanager"

    def __init__(self, folder: Path, *, config: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._config = config

    def command(self) -> list[str]:
        """
        Write its configuration.
        """
        config = self._folder / "alertmanager.yml"
        config.write_text(yaml.safe_dump(self._config))
        return [
            self.program,
            f"--config.file={config}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """
        Return what it knows, held back or not.
        """
        known: list[dict[str, Any]] = json.loads(self.get("/api/v2/alerts"))
        return known


class NodeExporter(_Server):
    """
    The exporter of this machine.
    """

    program = "prometheus-node-exporter"
    ready = "/metrics"

    def command(self) -> list[str]:
        """
        Say where it listens; it reads nothing.
        """
        return [self.program, f"--web.listen-address=127.0.0.1:{self.port}"]


class RedisExporter(_Server):
    """
    The exporter of a Redis.

    Args:
        folder: For its log.

        redis_url: Of whom it tells.
    """

    program = "prometheus-redis-exporter"
    ready = "/metrics"

    def __init__(self, folder: Path, *, redis_url: str) -> None:
        super().__init__(folder)
        self._redis_url = redis_url

    def command(self) -> list[str]:
        """
        Say where it listens, and where its Redis does.
        """
        # It knows a database by its number only in the queries for keys, of which we ask none.
        return [self.program, f"-web.listen-address=127.0.0.1:{self.port}", f"-redis.addr={self._redis_url.removesuffix('/0')}"]


class Notification(NamedTuple):
    """
    One message that a receiver got.
    """

    path: str
    body: dict[str, Any]


class Receiver:
    """
    A web server that plays Slack, PagerDuty and whatever else is told of alerts.
    """

    def __init__(self) -> None:
        self.received: list[Notification] = []
        told = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told.append(Notification(self.path, json.loads(body)))
                # PagerDuty answers 202 with JSON, Slack 200 with a word; newer Alertmanagers read what Slack says.
                is_pagerduty = "enqueue" in self.path
                self.send_response(202 if is_pagerduty else 200)
                self.end_headers()
                self.wfile.write(b'{"status": "success"}' if is_pagerduty else b"ok")

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- the name it has in the base class.
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, path: str) -> list[dict[str, Any]]:
        """
        Return what came to *path*, in order.
        """
        return [told.body for told in list(self.received) if told.path == path]
