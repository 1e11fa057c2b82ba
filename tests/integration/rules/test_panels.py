"""
Every panel's query, asked of a real Prometheus that knows half an hour of every metric: none is empty, and the numbers are the ones that happened.
"""

from __future__ import annotations

import itertools
import time

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.areas.channels.breakers.metrics import STATE
from celery_obs.areas.tasks.metrics import LATENCY
from celery_obs.rules.dashboards.model import Panel, Query
from celery_obs.rules.dashboards.pages import DASHBOARDS
from celery_obs.rules.dashboards.third_party import MET_OUTSIDE
from celery_obs.vocabulary.spec import Metric
from tests.answers import Survey, of_panels
from tests.monitoring import PrometheusServer, Row, quickly, without_variables
from tests.servers import wait_until


pytestmark = pytest.mark.integration

RULES = [
    Path(__file__).parents[3] / "deploy/prometheus/rules" / name
    for name in ("recording.yml", "recording-channels.yml", "slo.yml", "slo-channels.yml")
]

INSTANCES = ("a:19540", "b:19540")
"""
Two exporters that both show everything, as at the moment when the lease goes from one to the other.
"""

LABELS: Mapping[str, tuple[str, ...]] = {
    "task": ("shop.order", "channel_manager.sync"),
    "queue": ("celery", "alerts"),
    "state": ("success", "failure", "retry"),
    "exception": ("ValueError",),
    "exhausted": ("true", "false"),
    "reason": ("recycled", "killed"),
    "worker": ("celery@one", "celery@two"),
    "channel_type": ("airbnb", "booking"),
    "connection_id": ("c1", "c2"),
    "status": ("success", "failure", "active", "disconnected", "error"),
    "status_code": ("200", "500"),
    "result": ("created", "failed", "allowed", "denied"),
    "collector": ("workers", "queues"),
    "mode": ("idle", "user"),
    "priority": ("0", "3"),
    "fstype": ("ext4", "tmpfs"),
}
PER_MINUTE = {"success": 9.0, "failure": 1.0}
"""
How often a counter counts a minute, by its labels' values; any other once.
"""

NUMBERS: Mapping[str, float] = {
    "celery_queue_depth": 7.0,
    "channel_connections_total": 3.0,
    "celery_worker_pool_size": 4.0,
    "celery_worker_pool_busy": 2.0,
    "celery_beat_entry_overdue_seconds": 120.0,
    "node_memory_MemTotal_bytes": 4.0,
}


def history(now: float) -> str:
    """
    Write half an hour of every metric, one sample a minute, until *now*.
    """
    lines: list[str] = []
    for metric in {**CATALOGUE, **MET_OUTSIDE}.values():
        if metric.name != "ALERTS":
            lines.extend(_family(metric, now))
    return "\n".join([*lines, "# EOF\n"])


def _family(metric: Metric, now: float) -> Iterator[str]:
    for values in itertools.product(INSTANCES, *(LABELS.get(label, (f"a_{label}",)) for label in metric.labels)):
        labels = dict(zip(("instance", *metric.labels), values, strict=True)) | {"job": "celery-obs"}
        if metric.kind == "histogram":
            edges = [*(f"{edge:g}" for edge in metric.buckets), "+Inf"]
            # One observation a minute in each bucket.
            for number, edge in enumerate(edges, start=1):
                yield from _series(f"{metric.name}_bucket", labels | {"le": edge}, 0.0, number, now)
            yield from _series(f"{metric.name}_count", labels, 0.0, len(edges), now)
            yield from _series(f"{metric.name}_sum", labels, 0.0, 2.0 * len(edges), now)
        elif metric.kind == "counter":
            yield from _series(metric.name, labels, 0.0, next((PER_MINUTE[value] for value in values if value in PER_MINUTE), 1.0), now)
        else:
            yield from _series(metric.name, labels, _level(metric, labels["instance"], now), 0.0, now)


def _level(metric: Metric, instance: str, now: float) -> float:
    """
    Say what a gauge shows; of a breaker, one exporter still says that it is open, and the other that it is half-open.
    """
    if metric is STATE:
        return 1.0 if instance == INSTANCES[0] else 2.0
    is_time = "timestamp" in metric.name or metric.name.endswith("_at")
    return now - 100.0 if is_time else NUMBERS.get(metric.name, 1.0)


def _series(name: str, labels: Mapping[str, str], start: float, per_minute: float, now: float) -> Iterator[str]:
    text = ",".join(f'{label}="{value}"' for label, value in labels.items())
    for minute in range(31):
        yield f"{name}{{{text}}} {start + per_minute * minute} {now - 60 * (30 - minute):.3f}"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """
    A Prometheus that knows the last half hour, and evaluates the shipped rules.
    """
    folder = tmp_path_factory.mktemp("prometheus")
    with PrometheusServer(folder, past=history(time.time() - 2), rules=quickly(RULES, folder / "rules")) as server:
        yield server


@pytest.fixture(scope="module")
def panels(prometheus: PrometheusServer) -> Survey:
    """
    Ask every query of every panel once.
    """
    wait_until(lambda: prometheus.rows("slo:current_burn_rate:ratio"), within=60, what="the objectives' rules")
    survey = Survey(prometheus, of_panels({}))
    survey.ask()
    return survey


def asked(server: PrometheusServer, panel: Panel, query: Query) -> list[Row]:
    """
    Ask as Grafana would: a course for what is drawn over time, else a value now.
    """
    expr = without_variables(query.expr)
    return server.course(expr) if panel.kind in {"timeseries", "state-timeline"} else server.rows(expr)


def panel_of(uid: str, title: str) -> Panel:
    """
    Find a panel by its page and title.
    """
    return next(panel for page in DASHBOARDS if page.uid == uid for panel in page.panels() if panel.title == title)


def value(server: PrometheusServer, uid: str, title: str) -> float:
    """
    Return the one number that a panel shows.
    """
    panel = panel_of(uid, title)
    [row] = asked(server, panel, panel.queries[0])
    return row.value


def test_no_panel_is_empty(panels: Survey) -> None:
    """
    Where every metric is there, every query of every panel has an answer.
    """
    assert {} == panels.refused
    assert [] == [question.where for question, rows in panels.rows.items() if not rows]


def test_rows_have_the_labels_that_legends_and_tables_show(panels: Survey) -> None:
    """
    What a legend names, or a table has a column for, is on each row, and tells it from every other.
    """
    assert [] == panels.mislabelled()


def test_the_overview_tells_the_truth(prometheus: PrometheusServer) -> None:
    """
    Nine of ten runs were a success; two channels, each with two exporters that show it, count as two.
    """
    page = "channel-manager-overview"

    assert 0.9 == pytest.approx(value(prometheus, page, "Sync success rate (24 h)"))
    assert 6.0 == value(prometheus, page, "Active connections")
    assert 2.0 == value(prometheus, page, "Circuit breakers open")
    assert 2.0 == pytest.approx(value(prometheus, page, "Average sync latency"))


def test_open_wins_where_two_exporters_differ(prometheus: PrometheusServer) -> None:
    """
    The numbers of the states are not in order of badness: half-open on one exporter does not hide open on the other.
    """
    timeline = panel_of("channel-manager-overview", "Circuit breakers")

    assert [("airbnb", 1.0), ("booking", 1.0)] == sorted(
        (row.labels["channel_type"], row.value) for row in asked(prometheus, timeline, timeline.queries[0])
    )


def test_workers_queues_and_beat_tell_the_truth(prometheus: PrometheusServer) -> None:
    """
    A queue that two exporters show is counted once, a pool that each of two machines has is counted twice.
    """
    assert 14.0 == value(prometheus, "celery-queues", "Messages waiting")
    assert 0.5 == value(prometheus, "celery-tasks", "Pool in use")
    assert 2.0 == value(prometheus, "celery-tasks", "Workers up")
    assert 1.0 == value(prometheus, "celery-beat", "Entries overdue")


def test_time_to_delivery_is_read_off_the_buckets(prometheus: PrometheusServer) -> None:
    """
    With one observation in each bucket, the part within 30 seconds is that of the buckets up to there.
    """
    expected = (LATENCY.buckets.index(30.0) + 1) / (len(LATENCY.buckets) + 1)

    assert expected == pytest.approx(value(prometheus, "celery-obs-business", "Delivered within 30 s"))
