"""
A disk that fills and a directory that goes while everything runs: our numbers stop with one line in the log, and tasks go on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import wait_until
from tests.workers import Worker, settle_at

from .conftest import Stage


pytestmark = pytest.mark.integration

TIMES = 20


def check_tasks_go_on(stage: Stage, worker: Worker) -> None:
    """
    Run tasks, and see each of them run and none fail.
    """
    before = worker.ran("succeed")
    results = [stage.client.send_task("observed.succeed") for _ in range(TIMES)]
    assert ["done"] * TIMES == [result.get(timeout=20) for result in results]
    assert before + TIMES == worker.ran("succeed")


def lines_of_ours(worker: Worker) -> list[str]:
    """
    Return the lines of the worker's log that are ours.
    """
    return [line for line in worker.log.read_text().splitlines() if "celery_obs: " in line]


def take_away(folder: Path) -> None:
    """
    Remove a folder, also one in which a process makes a file at this very moment.
    """

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    wait_until(is_gone, what="the folder to go")


def test_tasks_go_on_when_the_metrics_directory_goes(stage: Stage) -> None:
    """
    Deleted under a running worker: tasks run on, each process says so once at most, and no traceback is shown.
    """
    worker = stage.worker("--max-tasks-per-child=5")
    check_tasks_go_on(stage, worker)

    take_away(stage.metrics_dir)

    check_tasks_go_on(stage, worker)
    wait_until(lambda: any("metrics are off" in line for line in lines_of_ours(worker)), what="the word about it")
    check_tasks_go_on(stage, worker)
    assert len(lines_of_ours(worker)) == len(set(pids(lines_of_ours(worker))))
    assert "Traceback" not in worker.log.read_text()
    assert worker.is_alive()


def pids(lines: list[str]) -> list[str]:
    return [line.partition("in process ")[2].partition(":")[0] for line in lines]


@pytest.mark.faults
def test_the_page_keeps_its_totals_when_the_metrics_directory_goes(stage: Stage) -> None:
    """
    A sidecar that looks on shows what it had seen, says that its look failed, and answers.
    """
    worker = stage.worker()
    page = stage.exporter()
    check_tasks_go_on(stage, worker)
    settle_at({"success": TIMES}, lambda: page.states("succeed"))

    take_away(stage.metrics_dir)

    settle_at(0, lambda: page.find("celery_obs_collector_success", collector="workers"))
    assert {"success": TIMES} == page.states("succeed")
    assert 503 == page.exporter.get("/-/ready").status
    assert 200 == page.exporter.get("/-/healthy").status


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[None]:
    """
    Mount a file system in memory over *folder*; skip the test where that is not allowed.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("Filling a disk needs one that may be filled, and only root can mount one.")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"Mounting a small file system is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> None:
    """
    Leave no byte free.
    """
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_tasks_go_on_when_the_disk_is_full(stage: Stage) -> None:
    """
    On a full disk tasks run on, what has its room is counted on, and what finds none is said once a process.
    """
    with small_disk(stage.metrics_dir, megabytes=4):
        worker = stage.worker("--max-tasks-per-child=7", CELERY_OBS_LABEL_LIMIT="100000")
        page = stage.exporter()
        check_tasks_go_on(stage, worker)
        settle_at({"success": TIMES}, lambda: page.states("succeed"))
        fill(stage.metrics_dir)

        stage.client.send_task("observed.sell_widely", args=(3000,)).get(timeout=30)
        check_tasks_go_on(stage, worker)

        settle_at({"success": 2 * TIMES}, lambda: page.states("succeed"))
        assert len(lines_of_ours(worker)) == len(set(pids(lines_of_ours(worker)))) > 0
        assert "Traceback" not in worker.log.read_text()
        worker.kill()
        page.exporter.kill()


@pytest.mark.faults
def test_beat_goes_on_when_the_metrics_directory_goes(stage: Stage) -> None:
    """
    Beat sends on what is due, and says once that its metrics are off.
    """
    worker = stage.worker(app="census")
    beat = stage.beat(app="census")
    wait_until(lambda: worker.ran("count") >= 2, what="beat's tasks")

    take_away(stage.metrics_dir)

    before = worker.ran("count")
    wait_until(lambda: worker.ran("count") >= before + 4, what="beat to go on")
    text = beat.log.read_text()
    assert 1 == text.count("celery_obs: "), text
    assert "metrics are off" in text
    assert "Traceback" not in text
