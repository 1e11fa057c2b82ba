"""
Things that go away and come back: the sidecar, workers, whole nodes.  Totals go on, and no process looks alive that is not.
"""

from __future__ import annotations

import signal

import pytest

from tests.servers import wait_until
from tests.workers import settle_at

from .conftest import Stage


pytestmark = pytest.mark.integration

FINISHED = "celery_task_finished_total"


def test_a_new_sidecar_serves_the_same_totals_at_once(stage: Stage) -> None:
    """
    What workers counted does not live in the sidecar: killed and started anew, its first look finds every total, and no answer has less.
    """
    stage.worker()
    page = stage.exporter()
    for task in ("succeed", "fail", "retry_once"):
        stage.client.send_task(f"observed.{task}")
    settle_at({"success": 2, "failure": 1, "retry": 1}, lambda: page.by("state", FINISHED))
    before = {
        key: value
        for key, value in page.samples().items()
        if key[0].startswith("celery_task_") and key[0].endswith(("_total", "_count", "_bucket"))
    }

    page.exporter.kill()
    page.exporter.start()

    answers: list[dict[tuple[str, tuple[tuple[str, str], ...]], float]] = []

    def has_looked() -> bool:
        # On a busy machine the first look may be late for the first answer, which then shows nothing rather than something wrong.
        answers.append(page.samples())
        return answers[-1]["celery_obs_collector_success", (("collector", "workers"),)] == 1

    wait_until(has_looked, what="the first look")
    *early, first = [{key: answer[key] for key in before if key in answer} for answer in answers]
    assert before == first
    assert not any(early)


def test_a_worker_that_restarts_goes_on_counting_in_the_same_files(stage: Stage) -> None:
    """
    However a worker ends, warm or by SIGKILL, its successor adds to the same totals, and the directory does not grow.
    """
    worker = stage.worker()
    page = stage.exporter()
    stage.client.send_task("observed.succeed")
    settle_at({"success": 1}, lambda: page.states("succeed"))
    files = stage.slots()

    for times, ending in enumerate((signal.SIGTERM, signal.SIGKILL), start=2):
        if ending == signal.SIGKILL:
            worker.kill()
        else:
            worker.stop(ending)
        worker.start()
        stage.client.send_task("observed.succeed")
        settle_at({"success": times}, lambda: page.states("succeed"))

    assert files == stage.slots()
    assert 0 == page.find("celery_obs_internal_errors_total", component="files") or page.find("celery_obs_internal_errors_total") is None


def test_two_nodes_in_one_directory_add_up_and_are_told_apart(stage: Stage) -> None:
    """
    Task totals are the sum of the nodes; whether each is up is said of each, and stops being said of a dead one.
    """
    first = stage.worker("--concurrency=1", name="w1@test")
    stage.worker("--concurrency=1", name="w2@test")
    page = stage.exporter()
    for _ in range(40):
        stage.client.send_task("observed.succeed", kwargs={"seconds": 0.01})
    settle_at({"success": 40}, lambda: page.states("succeed"))
    assert {"w1@test": 1, "w2@test": 1} == page.by("worker", "celery_worker_up")
    assert {"w1@test", "w2@test"} == set(page.by("worker", "celery_worker_heartbeat_timestamp_seconds"))

    first.kill()

    settle_at({"w2@test": 1}, lambda: page.by("worker", "celery_worker_up"))
    assert 0 == page.find("celery_worker_up", worker="w1@test")
    assert {"success": 40} == page.states("succeed")
