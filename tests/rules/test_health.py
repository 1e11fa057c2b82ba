"""
The exporter's health and the alerts say the same of the same page: Prometheus is the oracle.
"""

from __future__ import annotations

import random

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.schedules import metrics as beat
from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.areas.workers import metrics as workers
from celery_obs.exporter.health import Past, Trouble, find
from celery_obs.exporter.samples import Samples
from celery_obs.rules.alerts import ALERTS
from celery_obs.vocabulary.conditions import CONDITIONS
from celery_obs.vocabulary.spec import Metric

from .promtool import run_tests


BY_NAME = {alert.name: alert for alerts in ALERTS.values() for alert in alerts}
MINUTES = 600
NOW = MINUTES * 60.0
SCRAPED = {"job": "celery-obs", "instance": "a"}
WINDOWED = {name for name, condition in CONDITIONS.items() if condition.window}


class Series(NamedTuple):
    """
    What one series says now, what it said before the windows of the alerts began, and how promtool is told.
    """

    metric: Metric
    values: tuple[str, ...]
    now: float
    before: float
    notation: str

    def line(self, value: float) -> str:
        """
        Write it as an exporter does.
        """
        return f"{self.metric.name}{_labels(dict(zip(self.metric.labels, map(_escaped, self.values), strict=True)))} {value!r}"


def steady(metric: Metric, *values: str, value: float) -> Series:
    return Series(metric, values, value, value, f"{value:g}x{MINUTES}")


def jumping(metric: Metric, *values: str, by: float) -> Series:
    """
    A counter that counts *by* a few minutes ago.
    """
    return Series(metric, values, 7 + by, 7, f"7x{MINUTES - 5} {7 + by:g}x5")


def _labels(labels: Mapping[str, str]) -> str:
    inside = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{{{inside}}}" if labels else ""


def page(series: list[Series], *, before: bool = False) -> Samples:
    """
    Make a page of *series*, the families in one piece each.
    """
    ordered = sorted(series, key=lambda each: each.metric.name)
    return Samples(["\n".join(each.line(each.before if before else each.now) for each in ordered) + "\n"])


def cluster(pick: random.Random) -> Iterator[Series]:
    """
    Make up a cluster in which anything may be wrong.
    """
    yield steady(tasks.RECEIVED, "t", "q1", value=3)
    for worker in ("w1", "w2"):
        yield from _worker(pick, worker)
    for queue in ("q1", "q2", "q3"):
        yield from _queue(pick, queue)
    for task in ("t", 'odd "name" \\ t'):
        yield steady(tasks.LONGEST_RUNNING, task, value=pick.choice([0, 3600, 3601]))
    if pick.random() < 0.8:
        yield steady(beat.HEARTBEAT, value=NOW - pick.choice([3, 600, 601]))
    for entry in ("a", "b"):
        yield from _entry(pick, entry)
    for state in ourselves.FILE_STATES:
        yield steady(ourselves.METRIC_FILES, state, value=pick.choice([0, 1]))


def _worker(pick: random.Random, worker: str) -> Iterator[Series]:
    up = pick.choice([0, 1, 1, None])
    if up is not None:
        yield Series(workers.UP, (worker,), up, up, f"1x10 {up}x{MINUTES - 10}")
        yield steady(workers.HEARTBEAT, worker, value=NOW - pick.choice([1, 119, 121, 5000]))
    if up == 1:
        yield steady(workers.POOL_SIZE, worker, value=4)
        yield steady(workers.POOL_BUSY, worker, value=pick.choice([0, 4]))
        yield jumping(workers.PROCESS_RESTARTS, worker, "killed", by=pick.choice([0, 2]))
        yield jumping(workers.PROCESS_RESTARTS, worker, "lost", by=pick.choice([0, 5]))
        yield jumping(workers.PROCESS_RESTARTS, worker, "recycled", by=50)


def _queue(pick: random.Random, queue: str) -> Iterator[Series]:
    yield steady(queues.DEPTH, queue, value=pick.choice([0, 1, 500, 1000, 1001, 10_001]))
    yield jumping(tasks.STARTED, "t", queue, by=pick.choice([0, 9]))
    if pick.random() < 0.4:
        yield steady(queues.CONSUMERS, queue, value=pick.choice([0, 2]))
    if pick.random() < 0.7:
        yield steady(queues.OLDEST_MESSAGE_AGE, queue, value=pick.choice([0, 600, 601]))


def _entry(pick: random.Random, entry: str) -> Iterator[Series]:
    period = pick.choice([10, 300, 400])
    yield steady(beat.ENTRY_DUE, entry, value=NOW + 5)
    yield steady(beat.ENTRY_LAST_FIRED, entry, value=NOW + 5 - period)
    yield steady(beat.ENTRY_OVERDUE, entry, value=pick.choice([0, 300, 301]))
    if pick.random() < 0.8:
        yield steady(beat.SUCCEEDED_ENTRY, entry, value=NOW - pick.choice([3, 31, 899, 901, 1201]))


def found_in(series: list[Series]) -> list[Trouble]:
    """
    Ask the exporter's health.
    """
    past = Past()
    past.note(page(series, before=True), at=NOW - 900)
    past.note(page(series, before=True), at=NOW - 600)
    return list(find(page(series), past, now=NOW))


def as_promtool(series: list[Series]) -> dict[str, Any]:
    """
    Ask Prometheus the expression of each alert, and expect what the health found.
    """
    found = found_in(series)
    questions = []
    for name in CONDITIONS:
        alert = BY_NAME[name]
        # An increase is extrapolated, so that its value is nearly the one that was counted.
        expr = f"count by ({', '.join(alert.by)}) ({alert.promql})" if name in WINDOWED else alert.promql
        expected = [
            {
                "labels": _labels(_with_target(trouble.labels, alert.by)),
                "value": 1 if name in WINDOWED else trouble.value,
            }
            for trouble in found
            if trouble.condition.alert == name
        ]
        questions.append({"expr": expr, "eval_time": f"{MINUTES}m", "exp_samples": expected})
    shown = [
        {
            "series": f"{each.metric.name}{_labels({**SCRAPED, **dict(zip(each.metric.labels, map(_escaped, each.values), strict=True))})}",
            "values": each.notation,
        }
        for each in series
    ]
    return {"interval": "1m", "input_series": shown, "promql_expr_test": questions}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _with_target(labels: Mapping[str, str], by: tuple[str, ...]) -> dict[str, str]:
    known = {**SCRAPED, **{label: _escaped(value) for label, value in labels.items()}}
    return {label: known[label] for label in by}


def test_the_health_finds_what_the_alerts_find(tmp_path: Path) -> None:
    """
    On forty made-up clusters, each expression has the series and values that the health tells, no more and no fewer.
    """
    clusters = [list(cluster(random.Random(seed))) for seed in range(40)]

    done = run_tests([], [as_promtool(each) for each in clusters], tmp_path)

    assert 0 == done.returncode, (done.stdout + done.stderr)[:4000]
    assert set(CONDITIONS) == {trouble.condition.alert for each in clusters for trouble in found_in(each)}


def test_a_health_that_is_wrong_is_found(tmp_path: Path) -> None:
    """
    Prometheus is asked in earnest: with a threshold of its own, the health is told apart.
    """
    series = [steady(tasks.LONGEST_RUNNING, "t", value=3601)]
    asked = as_promtool(series)

    asked["input_series"][0]["values"] = f"3600x{MINUTES}"

    assert 1 == run_tests([], [asked], tmp_path).returncode


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_its_alert(name: str) -> None:
    """
    Severity, duration and number stand in one place.
    """
    condition, alert = CONDITIONS[name], BY_NAME[name]

    assert (condition.severity, condition.for_) == (alert.severity, alert.for_)
    assert alert.threshold is None or condition.threshold == float(alert.threshold.value)
    assert not condition.window or f"[{condition.window}]" in alert.promql
