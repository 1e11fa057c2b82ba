"""
A spoiled metrics directory costs its metrics only: workers, beat and publishers say so on one line, and work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import wait_until
from tests.workers import settle_at

from .conftest import Exporter, Stage
from .test_disk import TIMES, check_tasks_go_on, fill, lines_of_ours, small_disk


pytestmark = pytest.mark.integration

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root can act as another user.")


def spoil(stage: Stage, name: str, make: Callable[[Path], object]) -> Path:
    """
    Put something in the folder of the worker that will start; return its path.
    """
    folder = stage.metrics_dir / "w1@test.v1"
    folder.mkdir()
    make(folder / name)
    return folder / name


def test_a_worker_starts_where_pipes_lie_in_the_place_of_its_files(stage: Stage) -> None:
    """
    They are put aside, for a person to look at, and the worker counts.
    """
    for name in ("slot-0", "layout"):
        path = stage.metrics_dir / "w1@test.v1" / name
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path)
    os.mkfifo(path.parent / "slot-7")

    worker = stage.worker()
    page = stage.exporter()
    check_tasks_go_on(stage, worker)

    settle_at({"success": TIMES}, lambda: page.states("succeed"))
    assert {"slot-0.bad", "layout.bad", "slot-7"} <= {each.name for each in path.parent.iterdir()}
    assert "Traceback" not in worker.log.read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("heartbeat", "is a directory, where a file was expected. Remove it."),
        pytest.param("lock", "is a directory, where a file was expected. Remove it.", marks=pytest.mark.faults),
        pytest.param("slot-0.new", "is a directory, where a file was expected. Remove it.", marks=pytest.mark.faults),
    ],
)
def test_a_worker_whose_files_cannot_be_made_works_without_metrics(stage: Stage, name: str, reason: str) -> None:
    """
    One line names the path, the reason and the remedy.
    """
    path = spoil(stage, name, Path.mkdir)

    worker = stage.worker()
    check_tasks_go_on(stage, worker)

    off = [line for line in lines_of_ours(worker) if "metrics are off" in line]
    assert 1 == len({line.partition("metrics are off")[2] for line in off}), off
    assert f"{path} {reason}" in off[0]
    assert "Traceback" not in worker.log.read_text()


def test_a_worker_starts_on_a_full_disk_and_says_what_it_lacks(stage: Stage) -> None:
    """
    A worker that finds no room for its files works without metrics instead of not at all.
    """
    with small_disk(stage.metrics_dir, megabytes=1):
        fill(stage.metrics_dir)
        worker = stage.worker()
        check_tasks_go_on(stage, worker)

        assert 1 == len(lines_of_ours(worker)), lines_of_ours(worker)
        assert "No space left on device. Free disk space there." in lines_of_ours(worker)[0]
        assert str(stage.metrics_dir) in lines_of_ours(worker)[0]
        assert "Traceback" not in worker.log.read_text()
        worker.kill()


@pytest.mark.faults
def test_a_worker_starts_where_no_inode_is_left(stage: Stage) -> None:
    """
    The system says "no space"; we say what is meant.
    """
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=4", "tmpfs", str(stage.metrics_dir)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"Mounting a small file system is not allowed here: {done.stderr.strip()}")
    try:
        for number in range(3):
            (stage.metrics_dir / f"filler-{number}").touch()
        worker = stage.worker()
        check_tasks_go_on(stage, worker)

        assert "no inodes left: remove files there" in lines_of_ours(worker)[0]
        assert "Traceback" not in worker.log.read_text()
        worker.kill()
    finally:
        subprocess.run(["umount", "-l", str(stage.metrics_dir)], check=False)


def test_files_that_are_emptied_under_a_worker_end_no_process(stage: Stage) -> None:
    """
    The main process gives them their size again before anything touches what is gone: no task is lost, no total falls, and counting goes on.
    """
    worker = stage.worker()
    page = stage.exporter()
    check_tasks_go_on(stage, worker)
    settle_at({"success": TIMES}, lambda: page.states("succeed"))
    slots = sorted((stage.metrics_dir / "w1@test.v1").glob("slot-*"))
    sizes = [path.stat().st_size for path in slots]
    assert 3 == len(slots)

    for path in slots:
        os.truncate(path, 0)

    wait_until(lambda: [path.stat().st_size for path in slots] == sizes, what="the files to be mended")
    check_tasks_go_on(stage, worker)
    settle_at({"success": 2 * TIMES}, lambda: page.states("succeed"))
    assert worker.is_alive()
    assert 3 == sum("was truncated by another program" in line for line in lines_of_ours(worker)), lines_of_ours(worker)
    assert page.find("celery_obs_metric_files", state="corrupt") == 0
    assert "Traceback" not in worker.log.read_text()


def plant(place: Path) -> None:
    """
    Make a directory there as another user does, with a node in it whose layout has no end.
    """
    script = 'mkdir -p "$0/x@y.v1" && ln -s /dev/zero "$0/x@y.v1/layout" && chmod 755 "$0"'
    subprocess.run(["sh", "-c", script, str(place)], check=True, user=STRANGER, group=STRANGER, extra_groups=[], cwd="/")


@as_root
@pytest.mark.parametrize("variable", ["TMPDIR", "XDG_RUNTIME_DIR"])
def test_a_directory_that_another_user_planted_is_used_by_nobody(stage: Stage, variable: str) -> None:
    """
    Sidecar, probe and doctor refuse it as the worker does; a runtime directory of another user is not even asked for.
    """
    shared = Path(f"/tmp/celery_obs-planted-{os.getpid()}")  # noqa: S108 -- tmp_path is below what only we may enter.
    shared.mkdir()
    shared.chmod(0o1777 if variable == "TMPDIR" else 0o755)
    try:
        if variable == "TMPDIR":
            place = shared / f"celery_obs-{os.geteuid()}"
            plant(place)
        else:
            os.chown(shared, STRANGER, STRANGER)
            place = shared / "celery_obs"
            plant(place)
        environ = {"TMPDIR": str(shared), variable: str(shared), "CELERY_OBS_METRICS_DIR": "", "_CELERY_OBS_TESTS_METRICS_DIR": ""}
        if variable == "TMPDIR":
            environ["XDG_RUNTIME_DIR"] = ""
        obs = [sys.executable, "-m", "celery_obs.cli"]

        for command in ("probe", "liveness"), ("doctor",), ("forget-node", "x@y"):
            code, text = stage.run(*obs, *command, name=command[0], **environ)

            assert 0 != code or command[0] == "doctor", text
            if variable == "TMPDIR":
                assert f"belongs to uid {STRANGER} and not to uid {os.geteuid()}" in text
            else:
                assert str(shared / f"celery_obs-{os.geteuid()}") in text  # The place is elsewhere then, and its own.
        if variable == "TMPDIR":
            exporter = Exporter(metrics_dir=place, log=stage.folder / "exporter.log")
            try:
                exporter.start()
                assert "x@y" not in exporter.get().body
                assert 503 == exporter.get("/-/ready").status
                assert f"belongs to uid {STRANGER}" in exporter.tail()
            finally:
                exporter.kill()
        assert sorted(each.name for each in place.rglob("*")) == ["layout", "x@y.v1"]
    finally:
        shutil.rmtree(shared, ignore_errors=True)
