"""
Who comes from celery-exporter: what its dashboards and alerts ask is answered by a Prometheus that scrapes us, with the labels and aliases that we ship.
"""

from __future__ import annotations

import itertools
import threading

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.areas.workers import metrics as workers
from celery_obs.rules.links import JOB
from celery_obs.vocabulary.spec import Metric
from tests.monitoring import PrometheusServer, quickly
from tests.servers import wait_until


pytestmark = pytest.mark.integration

PROMETHEUS = Path(__file__).parents[3] / "deploy/prometheus"

LABELS = {
    "task": ("shop.order", "shop.mail"),
    "queue": ("celery", "mail"),
    "worker": ("celery@one", "celery@two"),
    "state": ("success", "failure", "revoked", "rejected"),
    "exception": ("ValueError", "KeyError"),
    "exhausted": ("true", "false"),
    "reason": ("TimeoutError",),
}
SHOWN = (
    *(tasks.PUBLISHED, tasks.RECEIVED, tasks.STARTED, tasks.FINISHED, tasks.FAILURES, tasks.RETRIES, tasks.RUNTIME, tasks.QUEUE_WAIT),
    *(workers.UP, workers.POOL_BUSY, workers.POOL_SIZE, queues.DEPTH, queues.CONSUMERS),
)


class Asked(NamedTuple):
    """
    A series that the other system's dashboards and alerts ask for.

    Attributes:
        name: Of the series.

        function: What is applied to a range of it; empty for a gauge.

        by: The labels by which it is added up, or whose values a person can choose.
    """

    name: str
    function: str
    by: tuple[str, ...]


COUNTERS = ("sent", "received", "succeeded", "failed", "retried", "revoked", "rejected", "started")

ASKED = (
    *(Asked(f"celery_task_{word}_total", "increase", ("job", "queue_name", "name")) for word in COUNTERS),
    *(Asked(f"celery_task_{word}_total", "rate", ("hostname", "name")) for word in COUNTERS),
    Asked("celery_task_failed_total", "increase", ("job", "exception")),
    Asked("celery_task_failed_total", "increase", ("name", "exception")),
    Asked("celery_task_runtime_bucket", "irate", ("job", "name", "le")),
    Asked("celery_task_runtime_sum", "rate", ("queue_name", "name")),
    Asked("celery_task_runtime_count", "rate", ("queue_name", "name")),
    Asked("celery_task_queue_wait_time_bucket", "rate", ("queue_name", "le")),
    Asked("celery_queue_length", "", ("job", "queue_name")),
    Asked("celery_worker_up", "", ("job", "hostname")),
    Asked("celery_worker_tasks_active", "", ("job", "hostname")),
    Asked("celery_active_consumer_count", "", ("queue_name",)),
    Asked("celery_active_worker_count", "", ("queue_name",)),
    Asked("celery_active_process_count", "", ("queue_name",)),
)

# Variables of its dashboards that are empty where there is one cluster and no namespace, and the selections that its alerts share.
WHERE = 'cluster="", namespace="", job=~".*celery.*", job=~"celery-obs", queue_name!~"None", name!~"None"'


def page(scrapes: int) -> str:
    """
    Write what an exporter shows at its so many-th scrape: each counter has gone on by one.
    """
    lines = []
    for metric in SHOWN:
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines += [f"{series} {scrapes if metric.kind != 'gauge' else 1}" for series in series_of(metric)]
    return "\n".join([*lines, ""])


def series_of(metric: Metric) -> Iterator[str]:
    """
    Go through the series of a metric.
    """
    for values in itertools.product(*(LABELS[label] for label in metric.labels)):
        inside = ",".join(f'{label}="{value}"' for label, value in zip(metric.labels, values, strict=True))
        if metric.kind != "histogram":
            yield f"{metric.name}{{{inside}}}"
            continue
        yield from (f'{metric.name}_bucket{{{inside},le="{edge}"}}' for edge in (1, "+Inf"))
        yield from (f"{metric.name}_{suffix}{{{inside}}}" for suffix in ("sum", "count"))


@pytest.fixture(scope="module")
def exporter() -> Iterator[int]:
    """
    The port of what shows those metrics.
    """
    scrapes = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page(next(scrapes)).encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- the name it has in the base class.
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def prometheus(exporter: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """
    A Prometheus that scrapes it as the documentation says, and knows the aliases.
    """
    folder = tmp_path_factory.mktemp("prometheus")
    labels = yaml.safe_load((PROMETHEUS / "labels/labels-celery-exporter.yml").read_text())
    job = {
        "job_name": JOB,
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}],
        **labels,
    }
    rules = quickly([PROMETHEUS / "aliases/aliases-celery-exporter.yml", PROMETHEUS / "rules/recording.yml"], folder / "rules")
    with PrometheusServer(folder, rules=rules, config={"scrape_configs": [job]}) as server:
        wait_until(lambda: bool(server.rows("rate(celery_task_failed_total[30s]) > 0")), what="the rate of an alias")
        yield server


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked.name} {asked.function} {' '.join(asked.by)}")
def test_what_was_asked_of_the_other_exporter_is_answered(prometheus: PrometheusServer, asked: Asked) -> None:
    """
    Every series is there with the labels by which it was added up, and every counter goes on.
    """
    selected = f"{asked.name}{{{WHERE}}}"
    value = f"{asked.function}({selected}[30s])" if asked.function else selected
    query = f"sum by ({', '.join(asked.by)}) ({value})"

    wait_until(lambda: bool(prometheus.rows(f"{query} > 0")), what=query)

    assert {asked.by} == {tuple(label for label in asked.by if row.labels.get(label)) for row in prometheus.rows(query)}


def test_nothing_is_counted_twice(prometheus: PrometheusServer) -> None:
    """
    A name that both systems have has our series only, and a sum by our labels is what it was.
    """
    [received] = prometheus.rows("count(celery_task_received_total)")
    ours = prometheus.rows("sum by (task, queue) (celery_task_received_total)")
    theirs = prometheus.rows("sum by (name, queue_name) (celery_task_received_total)")

    assert received.value == len(list(series_of(tasks.RECEIVED))) == len(ours) == len(theirs)
    assert {"shop.order", "shop.mail"} == {row.labels["task"] for row in ours} == {row.labels["name"] for row in theirs}


def test_a_failed_task_is_found_among_all_that_ended(prometheus: PrometheusServer) -> None:
    """
    The ratio on which the other system alerts is the one that happened: for each task, four failures for one success.
    """
    failed, succeeded = (
        f"sum by (job, namespace, queue_name, name) (increase(celery_task_{word}_total{{{WHERE}}}[20s]))"
        for word in ("failed", "succeeded")
    )

    wait_until(lambda: bool(prometheus.rows("rate(celery_task_succeeded_total[20s]) > 0")), what="the rate of an alias")
    ratios = prometheus.rows(f"{failed} / ({failed} + {succeeded})")

    assert 4 == len(ratios)
    assert [0.8] * 4 == [round(row.value, 2) for row in ratios]


def test_our_own_recorded_series_are_as_they_were(prometheus: PrometheusServer) -> None:
    """
    The labels that were added change nothing of what is worked out from those that were there.
    """
    wait_until(lambda: bool(prometheus.rows("task_queue:celery_task_started:rate5m > 0")), what="a recorded series")

    for row in prometheus.rows("task_queue:celery_task_started:rate5m"):
        assert {"__name__", "task", "queue"} == row.labels.keys()
