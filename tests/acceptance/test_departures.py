"""
Workers and pool processes that go: what was about them leaves the page, what they counted stays.
"""

from __future__ import annotations

import sys

import pytest

from tests.servers import wait_until
from tests.workers import settle_at

from .conftest import Page, Stage


pytestmark = pytest.mark.integration


def up(page: Page) -> dict[str, float]:
    """
    Which workers are shown, up or down.
    """
    return {dict(labels)["worker"]: value for (name, labels), value in page.samples().items() if name == "celery_worker_up"}


def test_a_worker_that_is_killed_is_down_until_it_is_forgotten_and_one_that_stops_leaves(stage: Stage) -> None:
    """
    ``kill -9`` shows the worker as down, ``celery-obs forget-node`` takes it away, and so does an orderly stop; every count stays.
    """
    killed, stopped = stage.worker("--concurrency=1", name="w1@test"), stage.worker("--concurrency=1", name="w2@test")
    page = stage.exporter()
    for _ in range(10):
        stage.client.send_task("observed.succeed")
    settle_at({"success": 10}, lambda: page.states("succeed"))

    killed.kill()
    stopped.stop()

    settle_at({"w1@test": 0}, lambda: up(page))
    code, said = stage.run(sys.executable, "-m", "celery_obs.cli", "forget-node", "w1@test", name="forget")
    assert 0 == code, said
    assert "Forgot w1@test." in said
    assert {} == up(page)
    assert {"success": 10} == page.states("succeed")


def test_a_worker_merges_what_vanished_before_it(stage: Stage) -> None:
    """
    After the stated time a dead node's folder is gone, the next worker has taken its counts over, and an exporter that was there all along shows the same.
    """
    dead = stage.worker("--concurrency=1", name="w1@test", CELERY_OBS_FORGET_AFTER="2")
    page = stage.exporter("--forget-after=2")
    for _ in range(10):
        stage.client.send_task("observed.succeed")
    settle_at({"success": 10}, lambda: page.states("succeed"))
    dead.kill()

    living = stage.worker("--concurrency=1", name="w2@test", CELERY_OBS_FORGET_AFTER="2")

    wait_until(lambda: not (stage.metrics_dir / "w1@test.v1").exists(), what="the folder to be merged")
    settle_at({"w2@test": 1}, lambda: up(page))
    assert {"success": 10} == page.states("succeed")
    stage.client.send_task("observed.succeed")
    settle_at({"success": 11}, lambda: page.states("succeed"))
    page.exporter.kill()
    page.exporter.start()
    settle_at({"success": 11}, lambda: page.states("succeed"))
    assert living.is_alive()


def test_a_pool_that_shrinks_shows_the_memory_of_those_that_are_left(stage: Stage) -> None:
    """
    After the peak of ``--autoscale`` the gauges of the processes that went are gone.
    """
    stage.worker("--concurrency=6", name="w1@test")
    page = stage.exporter()
    settle_at({"main", *"012345"}, lambda: set(page.by("slot", "celery_worker_process_resident_memory_bytes")))

    stage.client.control.pool_shrink(5)

    settle_at(2, lambda: len(page.by("slot", "celery_worker_process_resident_memory_bytes")))
