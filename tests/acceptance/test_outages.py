"""
Everything that we send to is in trouble at once, for a whole run: the work goes on as if nothing were, and what is lost is counted.
"""

from __future__ import annotations

import contextlib
import os
import time

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from celery_obs.areas.sidecar.metrics import DROPPED
from tests.otlp import Collector
from tests.sentry import PUBLIC_KEY, SentryServer
from tests.servers import free_port, wait_until
from tests.workers import Metrics, Worker, settle_at

from .conftest import Stage


pytestmark = pytest.mark.integration

TROUBLES = ("down", "slow", "500")


@contextlib.contextmanager
def trouble(kind: str) -> Iterator[Mapping[str, str]]:
    """
    A collector, a Sentry and a Redis of the cluster's state, all in the same trouble; give what has a worker use them.

    Where it is *mixed*, the collector says no and Sentry takes a minute to answer.
    """
    with Collector() as collector, SentryServer() as sentry:
        collector.delay, sentry.delay = 60.0 * (kind == "slow"), 60.0 * (kind in {"slow", "mixed"})
        collector.status, sentry.status = 500 if kind in {"500", "mixed"} else 200, 500 if kind == "500" else 200
        environ = {**collector.environ, "SENTRY_DSN": sentry.dsn, "CELERY_OBS_LOGS": "1"}
        if kind == "down":
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
            environ["SENTRY_DSN"] = f"http://{PUBLIC_KEY}@127.0.0.1:{free_port()}/42"
        if kind != "well":
            environ["CELERY_OBS_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
        yield environ


def work(stage: Stage, worker: Worker, number: int) -> float:
    """
    Let so many tasks succeed, and a quarter of that fail; return how long that took.
    """
    metrics = Metrics(worker.metrics_dir)
    before = metrics.states("succeed").get("success", 0), metrics.states("fail").get("failure", 0)
    began = time.monotonic()
    results = []
    for each in range(number):
        results.append(stage.client.send_task("observed.succeed"))
        if each % 4 == 0:
            stage.client.send_task("observed.fail", ignore_result=True)
    assert {"done"} == {result.get(timeout=120) for result in results}
    wait_until(lambda: metrics.states("fail").get("failure", 0) >= before[1] + number / 4, within=120, what="the tasks to fail")
    took = time.monotonic() - began
    assert before[0] + number == metrics.states("succeed").get("success")
    return took


def lost(worker: Worker) -> tuple[float, float]:
    """
    Return how many spans and how many reports were dropped.
    """
    reasons = Metrics(worker.metrics_dir).by("reason", DROPPED.name)
    return sum(count for reason, count in reasons.items() if reason.startswith("spans_")), reasons.get("errors_not_sent", 0.0)


def test_trouble_everywhere_costs_no_result(stage: Stage) -> None:
    """
    Tasks come to their own ends, a worker that is told to stop does so in time, and every span and report that did not arrive is counted.
    """
    with trouble("mixed") as environ:
        worker = stage.worker(**environ)

        work(stage, worker, 40)
        began = time.monotonic()
        worker.stop()

        assert time.monotonic() - began < 10
        settle_at((50.0, 10.0), lambda: lost(worker))


@pytest.mark.faults
@pytest.mark.parametrize("kind", TROUBLES)
def test_trouble_everywhere_costs_neither_speed_nor_memory(stage: Stage, kind: str) -> None:
    """
    A thousand tasks and 250 failures take about as long as when all is well, and no process grows by more.
    """
    took, busy, grew = {}, {}, {}
    for each in ("well", kind):
        with trouble(each) as environ:
            worker = stage.worker("--concurrency=1", name=f"{each}@test", **environ)
            work(stage, worker, 400)
            (child,) = worker.children()
            memory, busy_before = resident(child), processor_time(child)
            took[each] = work(stage, worker, 1000)
            grew[each], busy[each] = resident(child) - memory, processor_time(child) - busy_before
            worker.stop()
        if each != "well":
            settle_at((1750.0, 350.0), lambda worker=worker: lost(worker))  # type: ignore[misc]  # a lambda with a default.

    assert busy[kind] < 1.3 * busy["well"] + 0.5, busy
    assert took[kind] < 1.5 * took["well"] + 5.0, took  # Other programs on the machine take their part of this.
    assert grew[kind] < grew["well"] + 20_000, grew  # A task that fails leaves Celery with garbage, 180 KiB, until that is collected.


def processor_time(pid: int) -> float:
    """
    Return the seconds that a process has computed.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """
    Return the memory of a process, in KiB.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
