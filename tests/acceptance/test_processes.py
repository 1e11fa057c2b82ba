"""
However Celery starts its processes, and however often an app is set up: each process has one set of receivers and one slot, and counts are exact.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from collections.abc import Iterator
from typing import Any

import pytest

from celery_obs.runtime.signals import TABLE
from tests.servers import wait_until
from tests.workers import celery_version, settle_at

from .conftest import Page, Stage


pytestmark = pytest.mark.integration

COUNTS = {"celery_worker_process_cpu_seconds", "celery_worker_process_restarts"}
"""
Counters about workers; they stay.
"""

TIMES = 20


def check_census(stage: Stage, page: Page) -> None:
    """
    Run tasks in all pool processes, and see one receiver a signal in each of them and every task counted once.
    """
    answers: list[dict[str, Any]] = [stage.client.send_task("census.count").get(timeout=30) for _ in range(TIMES)]

    assert {1} == {receivers for answer in answers for receivers in answer["receivers"].values()}
    assert {len(TABLE)} == {len(answer["receivers"]) for answer in answers}
    settle_at(TIMES, lambda: page.find("celery_task_finished_total", task="census.count", state="success"))
    assert TIMES == page.find("celery_task_started_total", task="census.count")
    assert TIMES == page.find("celery_task_received_total", task="census.count")


def check_slots(stage: Stage, expected: dict[str, int]) -> None:
    """
    See so many slots in each node's folder, and none of those beyond the known processes.
    """
    slots = stage.slots()
    assert expected == {
        folder: sum(slot.startswith(f"{folder}/") for slot in slots) for folder in {slot.partition("/")[0] for slot in slots}
    }
    assert [] == [slot for slot in slots if int(slot.rpartition("-")[2]) >= 100_000]


@pytest.mark.parametrize("how", ["once", "twice", "imports", "both", "two apps"])
def test_each_process_has_one_set_of_receivers_and_one_slot(stage: Stage, how: str) -> None:
    """
    Set up once, twice, by configuration alone, in both ways, or for two apps: it is the same.
    """
    stage.worker(app="census", CENSUS_SETUP=how)
    page = stage.exporter()

    check_census(stage, page)

    check_slots(stage, {"w1@test.v1": 3})


@pytest.mark.skipif(celery_version() < (5, 7), reason="worker_pool_start_method came with Celery 5.7.")
@pytest.mark.parametrize("how", [pytest.param("once", marks=pytest.mark.faults), "imports"])
def test_spawned_pool_processes_are_observed_like_forked_ones(stage: Stage, how: str) -> None:
    """
    Processes that are spawned see only the app's configuration, and count all the same.
    """
    stage.worker(app="census", CENSUS_SETUP=how, CENSUS_START_METHOD="spawn")
    page = stage.exporter()

    check_census(stage, page)

    check_slots(stage, {"w1@test.v1": 3})


def test_a_worker_with_beat_inside_has_one_slot_more(stage: Stage) -> None:
    """
    ``worker -B``: beat's process publishes on the worker's schedule, and every task is counted as published, received and finished once.
    """
    worker = stage.worker("-B", f"--schedule={stage.folder}/schedule", app="census")
    page = stage.exporter()
    wait_until(lambda: (page.find("celery_task_finished_total", task="census.count", state="success") or 0) >= 5, what="beat's tasks")

    worker.stop()

    ran = worker.ran("count")
    settle_at(ran, lambda: page.find("celery_task_finished_total", task="census.count", state="success"))
    # Beat goes on for a moment after the worker has stopped to consume; it says so before it publishes, and may be killed in between.
    sent = worker.log.read_text().count("Sending due task")
    published = page.find("celery_task_published_total", task="census.count") or 0
    assert ran <= published
    assert sent - 1 <= published <= sent
    folders = {slot.partition("/")[0] for slot in stage.slots()}
    assert "w1@test.v1" in folders
    assert [] == [slot for slot in stage.slots() if int(slot.rpartition("-")[2]) >= 100_000]


def test_two_apps_in_one_process_are_both_observed(stage: Stage) -> None:
    """
    Tasks of a second app that is set up in the same process count as well.
    """
    stage.worker(app="census", CENSUS_SETUP="two apps")
    page = stage.exporter()

    stage.client.send_task("census.pass_on").get(timeout=30)

    settle_at(1, lambda: page.find("celery_task_finished_total", task="census.pass_on", state="success"))
    settle_at(1, lambda: page.find("celery_task_published_total", task="other.hello"))


@contextlib.contextmanager
def multi(stage: Stage, *arguments: str) -> Iterator[None]:
    """
    Start two workers with ``celery multi``, and stop them with it.
    """
    common = [
        "2",
        "-A",
        "observed",
        "-l",
        "INFO",
        "--concurrency=1",
        f"--pidfile={stage.folder}/%n.pid",
        f"--logfile={stage.folder}/%n%I.log",
        *arguments,
    ]
    celery = [sys.executable, "-m", "celery", "multi"]
    code, said = stage.run(*celery, "start", *common, name="multi")
    try:
        assert 0 == code, said
        yield
        code, said = stage.run(*celery, "stopwait", *common, name="multi")
        assert 0 == code, said
    finally:
        for pidfile in stage.folder.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError, OSError):
                os.killpg(os.getpgid(int(pidfile.read_text())), signal.SIGKILL)


def test_celery_multi_shares_one_directory(stage: Stage) -> None:
    """
    Two workers of ``celery multi`` on one directory: each has its own slots, totals add up, and both leave with ``stopwait``.
    """
    page = stage.exporter()

    with multi(stage):
        settle_at(2, lambda: page.find("celery_worker_up"), within=30)
        for _ in range(TIMES):
            stage.client.send_task("observed.succeed")
        settle_at({"success": TIMES}, lambda: page.states("succeed"))
        folders = sorted({slot.partition("/")[0] for slot in stage.slots()})
        assert 2 == len(folders)
        check_slots(stage, dict.fromkeys(folders, 2))

    settle_at(None, lambda: page.find("celery_worker_up"))
    assert not {name for name in page.families() if name.startswith("celery_worker_") and name not in COUNTS}
    assert {"success": TIMES} == page.states("succeed")


def test_a_pool_that_grows_and_shrinks_counts_on(stage: Stage) -> None:
    """
    With ``--autoscale`` each process that is added has a place of its own, one that is taken away leaves what it counted, and the page shows how many there are.
    """
    worker = stage.worker("--concurrency=1", "--autoscale=6,1", AUTOSCALE_KEEPALIVE="1")
    page = stage.exporter()

    def size() -> float | None:
        return page.find("celery_worker_pool_size", worker="w1@test")

    finished = 0
    for _ in range(2):
        for _ in range(12):
            stage.client.send_task("observed.succeed", [2.0])
        finished += 12
        wait_until(lambda: size() == 6, what="the pool to grow")
        wait_until(lambda: page.find("celery_worker_pool_busy", worker="w1@test") == 6, what="all of it to be busy")
        settle_at(finished, lambda: page.find("celery_task_finished_total", task="observed.succeed", state="success"))
        wait_until(lambda: size() == 1, what="the pool to shrink")

    assert finished == page.find("celery_task_started_total", task="observed.succeed") == worker.ran("succeed")
    assert 0 == page.find("celery_task_finished_total", task="observed.succeed", state="lost")
    assert 0 == page.find("celery_worker_process_restarts_total", worker="w1@test", reason="killed")
