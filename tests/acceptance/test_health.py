"""
Health, of real processes: what is wrong with workers, queues, tasks and beat is told before anything else.
"""

from __future__ import annotations

import json
import signal
import sys
import time

from typing import Any

import pytest

from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exporter.health import Health
from celery_obs.exporter.scrape import InternalErrors
from tests.servers import free_port, wait_until

from .conftest import Page, Stage


pytestmark = pytest.mark.integration

NO_REDIS = {"CELERY_OBS_REDIS_URL": "", "CELERY_OBS_BROKER_URL": ""}


def ask(stage: Stage, page: Page, *words: str) -> tuple[int, str]:
    """
    Run the daily check against the sidecar, which knows no Redis of its own.
    """
    url = f"http://127.0.0.1:{page.exporter.port}"
    return stage.run(sys.executable, "-m", "celery_obs.cli", "health", f"--exporter-url={url}", *words, name="health", **NO_REDIS)


def health_of(page: Page) -> tuple[int, dict[str, Any]]:
    answer = page.exporter.get("/health")
    return answer.status, json.loads(answer.body)


def alerts_in(document: dict[str, Any], area: str) -> list[str]:
    return [each["alert"] for each in document["checks"][area]["findings"]]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_and_500_messages_are_no_health(stage: Stage, how: signal.Signals) -> None:
    """
    Killed or stopped, the absence of all workers is told by ``/health``, the command and the page, with what waits, and no word of channels.
    """
    page = stage.exporter()
    worker = stage.worker()
    stage.client.send_task("observed.succeed")
    wait_until(lambda: worker.ran("succeed") == 1, what="a task to run")
    fine = ask(stage, page)
    was, before = health_of(page)

    worker.stop(how)
    for _ in range(500):
        stage.client.send_task("observed.succeed")
    wait_until(lambda: health_of(page)[0] == 503, what="the sidecar to see it")
    status, document = health_of(page)
    code, told = ask(stage, page)
    shown = page.exporter.get("/").body

    assert (200, "healthy") == (was, before["status"])
    assert (0, True) == (fine[0], "The cluster is healthy." in fine[1]), fine[1]
    assert (503, "unhealthy") == (status, document["status"])
    assert ["workers", "queues", "tasks"] == list(document["checks"])[:3]
    assert "CeleryWorkersAbsent" in alerts_in(document, "workers")
    assert ["CeleryQueueWithoutConsumers"] == alerts_in(document, "queues")
    assert 1 == code
    assert "No worker is up, so no task is being run. 500 messages wait." in told
    assert "500 messages wait in queue work, and no worker consumes it." in told
    assert "The cluster is unhealthy." in told
    assert shown.index("No worker is up") < shown.index("/metrics")
    for text in (fine[1], told):
        assert "channel" not in text
        assert "sync" not in text


def test_a_task_in_a_loop_is_told_as_hung(stage: Stage) -> None:
    """
    Past the alert's hour, a task that sleeps in a loop is named with how long it has been running; the worker itself is well.
    """
    worker = stage.worker()
    stage.client.send_task("observed.succeed", [600])
    wait_until(lambda: worker.ran("succeed") == 1, what="the task to begin")

    later = 4000.0
    collector = WorkersCollector(stage.metrics_dir, errors=InternalErrors(), clock=lambda: time.time() + later)
    report = Health(watches_workers=True, watches_queues=False).report([collector.collect().text])

    found = {trouble.condition.alert: trouble for trouble in report.troubles}
    assert {"CeleryTaskHung"} == found.keys()
    assert {"task": "observed.succeed"} == found["CeleryTaskHung"].labels
    assert "running for 1 h 6 min" in found["CeleryTaskHung"].text
    assert ("healthy", "degraded") == (report.status("workers"), report.status("tasks"))


def test_a_beat_that_is_gone_is_told_with_its_entries(stage: Stage) -> None:
    """
    Beat is well while it runs; killed, its silence and its overdue entries are told when the alerts' time is over.
    """
    stage.worker()
    beat = stage.beat()
    page = stage.exporter()
    wait_until(lambda: page.find("celery_beat_heartbeat_timestamp_seconds"), what="beat to be seen")
    fine = health_of(page)[1]["checks"]["beat"]

    beat.kill()
    later = 3700.0
    collector = WorkersCollector(stage.metrics_dir, errors=InternalErrors(), clock=lambda: time.time() + later)
    health = Health(watches_workers=True, watches_queues=False, clock=lambda: time.time() + later)
    report = health.report([collector.collect().text])

    assert ("healthy", None) == (fine["status"], fine["error"])
    found = {trouble.condition.alert: trouble.text for trouble in report.troubles}
    assert "Beat has stopped: it last ran its schedule 1 h" in found["CeleryBeatStopped"]
    assert "overdue" in found["CeleryBeatEntryOverdue"]
    assert "unhealthy" == report.status("beat")


def test_what_was_never_seen_cannot_be_told(stage: Stage) -> None:
    """
    Without any worker so far, and without an exporter, the exit code is 2, with what to do.
    """
    page = stage.exporter()
    stage.client.send_task("observed.succeed")

    code, told = ask(stage, page, "--json")
    unserved = stage.run(
        sys.executable, "-m", "celery_obs.cli", "health", f"--exporter-url=http://127.0.0.1:{free_port()}", name="unserved", **NO_REDIS
    )

    document = json.loads(told)
    assert (2, "unknown") == (code, document["status"])
    assert "no worker has written to this exporter's metrics directory" in document["checks"]["workers"]["text"]
    assert 2 == unserved[0]
    assert "Is it running, and is --exporter-url right?" in unserved[1]
