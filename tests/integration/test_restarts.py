"""
Workers that end in every way and come back: nothing is counted twice, nothing is forgotten, and no file is left over.
"""

from __future__ import annotations

import signal

import pytest

from celery import Celery

from tests.servers import wait_until
from tests.workers import Metrics, Worker, celery_version, settle_at


pytestmark = pytest.mark.integration


# Celery 5.4 leaves the message of a task that is acknowledged late to the visibility timeout; since 5.5 it is delivered again at once.
LATE = {"lost": 1, "success": 1} if celery_version() >= (5, 5) else {"lost": 1}


@pytest.mark.parametrize(
    ("task", "states"),
    [pytest.param("sleep_early", {"lost": 1}, id="acknowledged early"), pytest.param("sleep_late", LATE, id="acknowledged late")],
)
def test_a_task_cut_off_by_a_cold_shutdown_is_counted_as_lost(
    worker: Worker, client: Celery, metrics: Metrics, task: str, states: dict[str, int]
) -> None:
    """
    A cold shutdown (SIGQUIT) kills attempts; each is counted as lost, at the latest when the worker comes back, and a redelivered one runs again.
    """
    worker.start()
    client.send_task(f"observed.{task}")
    wait_until(lambda: worker.ran(task) == 1, what="the task to run")

    worker.stop(signal.SIGQUIT)
    worker.start()

    settle_at(states, lambda: metrics.states(task), within=30)


def test_a_worker_that_dies_whole_loses_its_attempts_and_says_so_when_it_is_back(worker: Worker, client: Celery, metrics: Metrics) -> None:
    """
    When the main process and its children are killed at once, the attempts that they were at are counted as lost by the next worker of that name.
    """
    worker.start()
    client.send_task("observed.wait_for_ever")
    wait_until(lambda: metrics.find("celery_task_in_progress", task="observed.wait_for_ever"), what="the task to run")

    worker.kill()
    settle_at(0, lambda: metrics.find("celery_task_in_progress", task="observed.wait_for_ever"))
    worker.start()

    settle_at({"lost": 1}, lambda: metrics.states("wait_for_ever"))


def test_recycled_children_count_on(worker: Worker, client: Celery, metrics: Metrics) -> None:
    """
    With ``--max-tasks-per-child`` every task is counted, no file is added, and the restarts are told.
    """
    worker.command.append("--max-tasks-per-child=3")
    worker.start()

    for _ in range(30):
        client.send_task("observed.succeed")

    settle_at({"success": 30}, lambda: metrics.states("succeed"))
    wait_until(lambda: (metrics.find("celery_worker_process_restarts_total", reason="recycled") or 0) >= 8, what="the restarts to be told")
    assert len(list(worker.metrics_dir.glob("w1@test.v1/slot-*"))) == 3
