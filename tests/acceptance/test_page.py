"""
The page itself, as its readers judge it: promtool, both parsers, and a Prometheus server.
"""

from __future__ import annotations

import json
import sys
import urllib.request

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.areas.queues.metrics import CONSUMERS
from tests.conftest import NeedServer
from tests.servers import free_port, wait_until
from tests.workers import settle_at

from .conftest import Page, Stage, complaints


pytestmark = pytest.mark.integration

PUBLISH = "from observed import succeed; [succeed.delay() for _ in range(3)]; [succeed.apply_async(countdown=-5) for _ in range(2)]"

ABSENT = {
    CONSUMERS.name,  # Redis cannot tell.
    "celery_obs_internal_errors_total",  # There were none.
    "celery_obs_labels_folded_total",  # There were none.
}
"""
Families that a healthy, small installation has nothing to show of.
"""


@pytest.fixture
def full_page(stage: Stage) -> Page:
    """
    The page of an installation in which every collector has something to show.
    """
    stage.client.send_task("observed.never_due", queue="unconsumed", headers={"celery_obs_published": 1.7e9})
    stage.worker()
    stage.beat()
    page = stage.exporter(f"--broker-url={stage.redis.url}", "--queues=unconsumed,work")
    for task in ("succeed", "fail", "retry_once", "ignore", "reject"):
        stage.client.send_task(f"observed.{task}")
    stage.client.send_task("observed.succeed", headers={"celery_obs_published": "soon"})
    stage.client.send_task("observed.succeed", headers={"celery_obs_published": 1e12})
    stage.client.send_task("observed.sell", args=('the corner shop \\ "quoted"\nnew line', 1))
    stage.client.send_task("observed.wait_for_ever")
    code, said = stage.run(sys.executable, "-c", PUBLISH, name="publisher")
    assert 0 == code, said
    wait_until(lambda: page.find("celery_beat_entry_last_success_timestamp_seconds"), what="a success of beat's")
    wait_until(lambda: page.find("celery_task_longest_running_seconds", task="observed.wait_for_ever"), what="the long task")
    wait_until(lambda: page.find("celery_task_cpu_seconds_total", task="observed.wait_for_ever") is not None, what="a second look at it")
    wait_until(lambda: page.find("celery_queue_oldest_message_age_seconds", queue="unconsumed"), what="an old message")
    return page


def test_the_page_passes_the_linter_and_the_parsers(full_page: Page, need_server: NeedServer) -> None:
    """
    Of a page with everything on it, promtool complains about exempted names only, and both formats say the same to the official parsers.
    """
    text = full_page.exporter.get(accept="text/plain")
    openmetrics = full_page.exporter.get(accept="application/openmetrics-text; version=1.0.0")
    shown = {family.name for family in parse_text(text.body)}
    named = {name.removesuffix("_total") for name in CATALOGUE.keys() - ABSENT if not name.startswith("channel_")}  # The demo has those.

    assert set() == named - shown
    assert shown == {family.name for family in parse_openmetrics(openmetrics.body)}
    assert (text.content_type.partition(";")[0], openmetrics.content_type.partition(";")[0]) == (
        "text/plain",
        "application/openmetrics-text",
    )
    exempt = {metric.name for metric in CATALOGUE.values() if metric.lint_exempt}
    assert [] == [line for line in complaints(need_server("promtool"), text.body) if line.partition(" ")[0] not in exempt]


def test_a_prometheus_server_scrapes_the_page(full_page: Page, need_server: NeedServer, stage: Stage, tmp_path: Path) -> None:
    """
    To a real Prometheus the sidecar is up, and a query returns what the tasks did.
    """
    settle_at({"failure": 1}, lambda: full_page.states("fail"))
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "celery", "static_configs": [{"targets": [f"127.0.0.1:{full_page.exporter.port}"]}]}],
    }
    (tmp_path / "prometheus.json").write_text(json.dumps(config))  # YAML, too.
    stage.process(
        need_server("prometheus"),
        f"--config.file={tmp_path}/prometheus.json",
        f"--storage.tsdb.path={tmp_path}/prometheus",
        f"--web.listen-address=127.0.0.1:{port}",
        name="prometheus",
    )

    def query(promql: str) -> list[Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': promql})}", timeout=5) as answer:
                return [float(each["value"][1]) for each in json.load(answer)["data"]["result"]]
        except OSError:
            return []

    settle_at([1.0], lambda: query("up"), within=40)
    settle_at([1.0], lambda: query('sum(celery_task_finished_total{task="observed.fail", state="failure"})'))
    assert [1.0] == query('max(celery_obs_collector_success{collector="workers"})')
    assert [1.0] == query('sum(celery_task_runtime_seconds_count{task="observed.fail"})')
