"""
Flower itself beside us, on one broker: what our aliases answer under its names is what it says.
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.parse
import urllib.request

from functools import partial
from typing import Any

import pytest

from tests.conftest import NeedServer
from tests.pages import DOCS
from tests.servers import free_port, wait_until
from tests.workers import settle_at

from .conftest import Stage


pytestmark = pytest.mark.integration

ALIASES = DOCS.parent / "deploy" / "prometheus" / "aliases" / "aliases-flower.yml"
SENT = {"succeed": 12, "fail": 3, "retry_once": 4, "fail_expectedly": 2}
EVENTS = {
    ("observed.succeed", "task-received"): 12.0,
    ("observed.succeed", "task-started"): 12.0,
    ("observed.succeed", "task-succeeded"): 12.0,
    ("observed.fail", "task-received"): 3.0,
    ("observed.fail", "task-started"): 3.0,
    ("observed.fail", "task-failed"): 3.0,
    ("observed.fail_expectedly", "task-received"): 2.0,
    ("observed.fail_expectedly", "task-started"): 2.0,
    ("observed.fail_expectedly", "task-failed"): 2.0,
    ("observed.retry_once", "task-received"): 8.0,
    ("observed.retry_once", "task-started"): 8.0,
    ("observed.retry_once", "task-retried"): 4.0,
    ("observed.retry_once", "task-succeeded"): 4.0,
}
RUNTIMES = {("observed.succeed",): 12.0, ("observed.retry_once",): 4.0}
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [aliases.yml]
scrape_configs:
  - job_name: flower
    static_configs: [{{targets: ["127.0.0.1:{flower}"]}}]
  - job_name: ours
    static_configs: [{{targets: ["127.0.0.1:{ours}"]}}]
"""


@pytest.fixture
def prometheus(stage: Stage, need_server: NeedServer) -> int:
    """
    The port of a Prometheus that scrapes Flower and our sidecar, beside a worker that both watch.
    """
    program, flower, port = need_server("prometheus"), free_port(), free_port()
    base = (sys.executable, "-m", "celery", "-A", "observed")
    watching = stage.process(*base, "flower", "--address=127.0.0.1", f"--port={flower}", "--inspect_timeout=500", name="flower")
    wait_until(lambda: "Connected to" in watching.log.read_text(), within=40, what="Flower to watch the broker")
    stage.worker("-E")
    ours = stage.exporter()
    (stage.folder / "aliases.yml").write_text(ALIASES.read_text().replace("interval: 30s", "interval: 1s"))
    (stage.folder / "prometheus.yml").write_text(CONFIG.format(flower=flower, ours=ours.exporter.port))
    shutil.rmtree(stage.folder / "data", ignore_errors=True)
    stage.process(
        program,
        f"--config.file={stage.folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={stage.folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        name="prometheus",
    )
    return port


def ask(port: int, query: str, *labels: str) -> dict[tuple[str, ...], float]:
    """
    Ask Prometheus; return the values that are not 0 by those labels.
    """
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=5
        ) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
    except OSError:
        return {}
    values = {tuple(each["metric"].get(label, "") for label in labels): float(each["value"][1]) for each in found}
    return {key: value for key, value in values.items() if value}


def test_the_aliases_say_what_flower_says(stage: Stage, prometheus: int) -> None:
    """
    Events by task and type, runtimes of what succeeded by task, and which worker is online, from both at once.
    """
    for name, times in SENT.items():
        for _ in range(times):
            stage.client.send_task(f"observed.{name}")

    for job in ("flower", "ours"):
        for query, labels, expected in (
            ('sum by (task, type) (flower_events_total{job="%s", task!="", type!="task-sent"})', ("task", "type"), EVENTS),
            ('sum by (task) (flower_task_runtime_seconds_count{job="%s"})', ("task",), RUNTIMES),
            ('sum by (worker) (flower_worker_online{job="%s"})', ("worker",), {("w1@test",): 1.0}),
        ):
            settle_at(expected, partial(ask, prometheus, query % job, *labels))
