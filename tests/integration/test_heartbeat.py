"""
What probes say of a worker, and of beat, whose broker is away: it lives, and it is not ready.
"""

from __future__ import annotations

import os
import sys
import time

from pathlib import Path

import pytest

from celery import Celery

from celery_obs.cli.probe import heartbeats, verdict
from tests.servers import RedisServer, wait_until
from tests.workers import APPS, Process, Worker


pytestmark = pytest.mark.integration

EVERY = 0.3
"""
Seconds between two beats.
"""


class Beat(Process):
    """
    Beat of the observed app.
    """

    def __init__(self, *, redis: str, folder: Path) -> None:
        self.metrics_dir = folder / "metrics"
        super().__init__(
            [sys.executable, "-m", "celery", "-A", "observed", "beat", f"--schedule={folder / 'schedule'}", "--pidfile="],
            log=folder / "beat.log",
            environ={
                "TEST_BROKER": redis,
                "TEST_LEDGER": redis,
                "CELERY_OBS_METRICS_DIR": str(self.metrics_dir),
                "CELERY_OBS_HEARTBEAT_INTERVAL": str(EVERY),
                "PYTHONPATH": os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            },
        )


def says(question: str, folder: Path) -> bool:
    """
    Ask what a probe asks, with little patience.
    """
    return verdict(question, heartbeats(str(folder)), now=time.time(), max_age=2.5)[0]


def test_a_broker_that_is_away_makes_no_worker_look_dead(tmp_path: Path) -> None:
    """
    While Celery tries to connect again, the event loop stands still and the heart beats on; who would restart the worker would mend nothing.
    """
    with RedisServer() as broker, Worker(redis=broker.url, folder=tmp_path, CELERY_OBS_HEARTBEAT_INTERVAL=str(EVERY)) as worker:
        wait_until(lambda: says("readiness", worker.metrics_dir), what="the worker to be ready")

        broker.stop()
        wait_until(lambda: not says("readiness", worker.metrics_dir), what="readiness to say no")
        gone = time.time()
        wait_until(lambda: heartbeats(str(worker.metrics_dir))[0].touched_at > gone + 8 * EVERY, within=20, what="beats without a broker")
        wait_until(lambda: says("liveness", worker.metrics_dir), what="liveness to say yes")
        assert not says("readiness", worker.metrics_dir)

        broker.start()
        wait_until(lambda: says("readiness", worker.metrics_dir), what="the worker to be ready again")
        worker.stop()

    assert "metrics are off" not in worker.log.read_text()


def test_a_worker_that_starts_without_a_broker_lives_and_is_not_ready(tmp_path: Path) -> None:
    """
    A start-up probe that asks for life does not restart it until the broker is there.
    """
    broker = RedisServer()
    brokerless = Worker(redis=broker.url, folder=tmp_path, CELERY_OBS_HEARTBEAT_INTERVAL=str(EVERY))
    super(Worker, brokerless).start()
    try:
        wait_until(lambda: list(brokerless.metrics_dir.glob("*/heartbeat")), what="a heartbeat")
        begun = time.time()
        wait_until(
            lambda: heartbeats(str(brokerless.metrics_dir))[0].touched_at > begun + 4 * EVERY, within=20, what="beats without a broker"
        )
        assert not says("readiness", brokerless.metrics_dir)
    finally:
        brokerless.kill()


def test_beat_that_starts_without_a_broker_lives_and_is_not_ready(tmp_path: Path) -> None:
    """
    As a worker does; it is ready once it has gone through its schedule.
    """
    with RedisServer() as broker:
        broker.stop()
        with Beat(redis=broker.url, folder=tmp_path) as beat:
            wait_until(lambda: list(beat.metrics_dir.glob("*/heartbeat")), what="a heartbeat")
            begun = time.time()
            wait_until(
                lambda: heartbeats(str(beat.metrics_dir))[0].touched_at > begun + 4 * EVERY, within=20, what="beats without a broker"
            )
            assert not says("readiness", beat.metrics_dir)

            broker.start()
            wait_until(lambda: says("readiness", beat.metrics_dir), what="beat to be ready")


def test_an_event_loop_that_stands_still_beside_its_broker_is_told(tmp_path: Path) -> None:
    """
    A task in the main process, as the solo pool has it, keeps the heart from beating: nothing beats in the place of a worker that hangs.
    """
    with (
        RedisServer() as broker,
        Worker("-P", "solo", redis=broker.url, folder=tmp_path, CELERY_OBS_HEARTBEAT_INTERVAL=str(EVERY)) as worker,
    ):
        wait_until(lambda: says("readiness", worker.metrics_dir), what="the worker to be ready")

        Celery(broker=broker.url).send_task("observed.succeed", kwargs={"seconds": 5.0}, queue="work")

        wait_until(lambda: not says("liveness", worker.metrics_dir), what="liveness to say no")
        wait_until(lambda: says("readiness", worker.metrics_dir), what="the task's end")
