"""
The commands beside living processes, as ``celery-obs …`` and as ``celery -A proj obs …``.
"""

from __future__ import annotations

import signal
import sys

from importlib.metadata import entry_points

import pytest

from tests.servers import wait_until
from tests.workers import settle_at

from .conftest import Stage


pytestmark = pytest.mark.integration

OURS = (sys.executable, "-m", "celery_obs.cli")
CELERYS = (sys.executable, "-m", "celery", "-A", "census", "obs")
IS_INSTALLED = any(point.value == "celery_obs.cli:obs" for point in entry_points(group="celery.commands"))
BOTH = [
    pytest.param(OURS, id="celery-obs"),
    pytest.param(
        CELERYS,
        id="celery obs",
        marks=pytest.mark.skipif(not IS_INSTALLED, reason="Celery finds our command through the installed distribution; tox installs it."),
    ),
]


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("command", ["probe", "doctor", "exporter", "demo"])
def test_every_command_has_help_that_fits_on_a_screen(stage: Stage, way: tuple[str, ...], command: str) -> None:
    """
    ``--help`` says what a command is for and what its options are.
    """
    code, said = stage.run(*way, command, "--help", name="help")

    assert 0 == code
    assert "Usage: " in said
    assert "--metrics-dir" in said or command == "demo"
    assert len(said.splitlines()) <= 50


@pytest.mark.parametrize("way", BOTH)
def test_probes_tell_a_live_worker_from_a_dead_one(stage: Stage, way: tuple[str, ...]) -> None:
    """
    Liveness and readiness say yes beside a worker, and no once its heartbeat is older than allowed.
    """
    worker = stage.worker(app="census")

    for question in ("liveness", "readiness"):
        code, said = stage.run(*way, "probe", question, name="probe")
        assert 0 == code, said

    worker.kill()

    wait_until(lambda: stage.run(*way, "probe", "liveness", "--max-age=1", name="probe")[0] == 1, what="the probe to say no")
    code, said = stage.run(*way, "probe", "readiness", "--max-age=1", name="probe")
    assert 1 == code
    assert "worker w1@test" in said
    assert "the limit is 1 s" in said


def test_probes_say_no_after_an_orderly_end(stage: Stage) -> None:
    """
    A worker that went in order leaves no heartbeat, its own or that of the beat inside it, so that neither is waited for.
    """
    worker = stage.worker("-B", f"--schedule={stage.folder}/schedule", app="census")
    wait_until(lambda: len(list(stage.metrics_dir.glob("*/heartbeat"))) == 2, what="both heartbeats")
    # Celery itself hangs now and then when it is stopped in the second in which beat and pool start, without us as well.
    wait_until(lambda: worker.ran("count") >= 5, what="beat's tasks")

    worker.stop(signal.SIGTERM)

    assert "metrics are off" not in worker.log.read_text()
    assert [] == list(stage.metrics_dir.glob("*/heartbeat"))
    code, said = stage.run(*OURS, "probe", "liveness", name="probe")
    assert 1 == code
    assert "no heartbeat" in said


def test_a_worker_that_finishes_its_work_lives_and_is_not_ready(stage: Stage) -> None:
    """
    During a warm shutdown the heart beats on, metrics go on, and readiness says no.
    """
    worker = stage.worker()
    page = stage.exporter()
    stage.client.send_task("observed.succeed", kwargs={"seconds": 3.0})
    wait_until(lambda: page.find("celery_task_in_progress", task="observed.succeed"), what="the task to run")

    worker.send(signal.SIGTERM)

    wait_until(lambda: stage.run(*OURS, "probe", "readiness", name="probe")[0] == 1, what="readiness to say no")
    assert 0 == stage.run(*OURS, "probe", "liveness", name="probe")[0]
    worker.wait()
    settle_at({"success": 1}, lambda: page.states("succeed"))
    assert "metrics are off" not in worker.log.read_text()


def test_beat_is_probed_like_a_worker(stage: Stage) -> None:
    """
    Beat beats, too, and stops doing so in order.
    """
    beat = stage.beat(app="census")
    wait_until(lambda: stage.run(*OURS, "probe", "readiness", name="probe")[0] == 0, what="beat to be ready")

    beat.stop(signal.SIGTERM)

    wait_until(lambda: stage.run(*OURS, "probe", "liveness", name="probe")[0] == 1, what="the probe to say no")


@pytest.mark.parametrize("way", BOTH)
def test_the_doctor_finds_a_living_installation_well(stage: Stage, way: tuple[str, ...]) -> None:
    """
    Beside a worker on Redis everything is OK, and with the app at hand no URL has to be given.
    """
    stage.worker(app="census")
    given = [f"--broker-url={stage.redis.url}", f"--redis-url={stage.redis.url}"] if way == OURS else []

    code, said = stage.run(*way, "doctor", *given, name="doctor")

    assert 0 == code, said
    assert "FAIL" not in said
    for name in ("metrics directory", "broker", "redis", "clock", "worker w1@test"):
        assert f"OK   {name}: " in said


def test_the_doctor_says_what_to_do_when_redis_is_away(stage: Stage) -> None:
    """
    Without Redis there are FAIL lines and exit code 1, and no traceback.
    """
    code, said = stage.run(*OURS, "doctor", "--broker-url=redis://:secret@127.0.0.1:1", name="doctor")

    assert 1 == code
    assert "FAIL broker: cannot connect to redis://:***@127.0.0.1:1" in said
    assert "FAIL redis: " in said
    assert "Traceback" not in said
    assert "secret" not in said
