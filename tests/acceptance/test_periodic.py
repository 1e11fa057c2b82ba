"""
Our periodic tasks, with real workers and beats: both names of a task, two beats, beats and workers that die.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

from celery_obs.areas.channels.conflicts.metrics import DETECTED
from celery_obs.areas.channels.connections.state import Connection, Drift, Facts
from celery_obs.areas.channels.reconciliation.metrics import DAYS_CHECKED, DAYS_DRIFTED
from celery_obs.areas.channels.reconciliation.state import Pending
from celery_obs.areas.schedules.metrics import ENTRY_DUE, ENTRY_LAST_FIRED, ENTRY_OVERDUE
from celery_obs.areas.tasks.metrics import FINISHED, PUBLISHED, RECEIVED, STARTED
from tests.servers import wait_until
from tests.workers import Worker, settle_at

from .conftest import Page, Stage


pytestmark = pytest.mark.integration

FULL = "channel_manager.check_drift_of"
ENTRY = "celery_obs.check_drift"


def make_worker(stage: Stage) -> Worker:
    return stage.worker(app="calendars", CELERY_OBS_BEAT_SCHEDULE="1")


def make_connections(stage: Stage, worker: Worker, *names: str) -> Facts:
    facts = Facts(worker.redis)
    facts.register(Connection(name, "airbnb") for name in names)
    return facts


def days(page: Page) -> tuple[float | None, float | None, float | None]:
    """
    Return the days that were counted as checked, as drifted, and as conflicts.
    """
    return tuple(page.find(metric.name, channel_type="airbnb") for metric in (DAYS_CHECKED, DAYS_DRIFTED, DETECTED))  # type: ignore[return-value]  # Three of them.


def test_a_task_can_be_called_by_its_full_and_by_its_bare_name(stage: Stage) -> None:
    """
    ``celery call`` runs the same task under both; logs and metrics know the full name only.
    """
    worker = make_worker(stage)
    facts = make_connections(stage, worker, "one", 'two "quoted"')
    page = stage.exporter()

    for name, connection in (("check_drift_of", "one"), (FULL, 'two "quoted"')):
        code, said = stage.run(
            sys.executable, "-m", "celery", "-A", "calendars", "call", name, f"--args={json.dumps([connection])}", name="call"
        )
        assert 0 == code, said

    settle_at({"one", 'two "quoted"'}, lambda: set(facts.drifts()))
    assert {(2, 10)} == {(drift.days, drift.checked) for drift in facts.drifts().values()}
    for metric in (PUBLISHED, RECEIVED, STARTED, FINISHED):
        settle_at({FULL: 2.0}, lambda metric=metric: {task: n for task, n in page.by("task", metric.name).items() if "check" in task})  # type: ignore[misc]  # A lambda's default has no type.
    settle_at((20.0, 4.0, 4.0), lambda: days(page))
    log = worker.log.read_text()
    assert 2 == log.count(f"Task {FULL}[") - log.count("succeeded in")
    assert "Task check_drift_of[" not in log


def test_two_beats_check_each_connection_once(stage: Stage) -> None:
    """
    A second beat that runs by accident doubles the messages of the schedule, and no work; killed beats show as overdue until one is back.
    """
    worker = make_worker(stage)
    names = [f"connection {number}" for number in range(5)]
    make_connections(stage, worker, *names)
    page = stage.exporter()
    beats = [
        stage.process(
            *(
                sys.executable,
                "-m",
                "celery",
                "-A",
                "calendars",
                "beat",
                "-l",
                "INFO",
                "--pidfile=",
                f"--schedule={stage.folder}/beat{number}",
            ),
            name=f"beat{number}",
            CELERY_OBS_BEAT_SCHEDULE="1",
            **({} if number == 0 else {"CELERY_OBS_METRICS_DIR": str(stage.folder / "elsewhere")}),
        )
        for number in range(2)
    ]

    def looked() -> bool:
        return all(beat.log.read_text().count(f"Sending due task {ENTRY}") >= 2 for beat in beats)

    wait_until(looked, within=30, what="both beats to have fired twice")
    settle_at((50.0, 10.0, 10.0), lambda: days(page))

    assert {f"remote {name}": "1" for name in names} == {name: n for name, n in worker.redis.hgetall("ran").items() if "remote" in name}
    ours = {entry for entry in page.by("entry", ENTRY_DUE.name) if entry.startswith("celery_obs.")}
    assert {ENTRY, "celery_obs.refresh_expiring_tokens", "celery_obs.export_breaker_states"} == ours

    for beat in beats:
        beat.send(signal.SIGKILL)
        beat.wait()
    fired = page.find(ENTRY_LAST_FIRED.name, entry=ENTRY) or 0.0
    wait_until(lambda: (page.find(ENTRY_OVERDUE.name, entry=ENTRY) or 0) > 1, within=15, what="the entry to be overdue")

    stage.beat(app="calendars", CELERY_OBS_BEAT_SCHEDULE="1")

    wait_until(lambda: (page.find(ENTRY_LAST_FIRED.name, entry=ENTRY) or 0) > fired, within=15, what="the entry to be fired again")
    wait_until(lambda: (page.find(ENTRY_OVERDUE.name, entry=ENTRY) or 0) < 1, what="the entry to be in time")
    settle_at((50.0, 10.0, 10.0), lambda: days(page))


def test_a_worker_that_dies_in_the_middle_has_said_nothing(stage: Stage) -> None:
    """
    The facts before it stay, the check runs again by itself, and nothing is counted twice.
    """
    worker = make_worker(stage)
    facts = make_connections(stage, worker, "slow")
    facts.reconciled("slow", "airbnb", Drift(7, 365, 5.0))
    page = stage.exporter()
    stage.client.send_task(FULL, args=["slow"])
    wait_until(lambda: worker.ran("remote slow") == 1, what="the check to begin")

    assert {"slow": Drift(7, 365, 5.0)} == facts.drifts()
    for child in worker.children():
        os.kill(child, signal.SIGKILL)

    wait_until(lambda: facts.drifts()["slow"].checked == 10, within=30, what="the check to have run again")
    settle_at((10.0, 2.0, 2.0), lambda: days(page))
    assert (2, 2) == (worker.ran("remote slow"), Pending(worker.redis).all()["slow"].days)
    settle_at({"lost": 1.0, "success": 1.0}, lambda: page.by("state", FINISHED.name, task=FULL))
