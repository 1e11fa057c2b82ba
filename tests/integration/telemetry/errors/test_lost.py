"""
Attempts that are killed: one report of each, with its task, however many there are.
"""

from __future__ import annotations

import signal

from collections import Counter
from pathlib import Path

import pytest

from celery import Celery

from tests.sentry import SentryServer
from tests.servers import RedisServer, wait_until
from tests.workers import Worker, settle_at


pytestmark = pytest.mark.integration


@pytest.mark.parametrize("number", [3, pytest.param(50, marks=pytest.mark.faults)])
def test_each_attempt_whose_process_ends_is_reported_once(number: int, redis_server: RedisServer, client: Celery, tmp_path: Path) -> None:
    """
    Of tasks killed by SIGKILL and by hard limits the endpoint gets one report each, with their names and ids, and so it does
    of what fails in processes that end after one task.
    """
    with SentryServer() as sentry:
        worker = Worker(
            "--concurrency=4",
            redis=redis_server.url,
            folder=tmp_path,
            app="reporting",
            SENTRY_DSN=sentry.dsn,
            CELERY_OBS_SENTRY_MODE="light",
        )
        with worker:
            expected = Counter(
                (f"observed.{task}", error, client.send_task(f"observed.{task}").id)
                for task, error in (
                    ("kill_own_process", "WorkerLostError"),
                    ("exceed_hard_limit", "TimeLimitExceeded"),
                    ("fail", "ValueError"),
                )
                for _ in range(number)
            )

            settle_at(
                expected,
                lambda: Counter(
                    (event["transaction"], event["exception"]["values"][-1]["type"], event["tags"]["task_id"]) for event in sentry.events()
                ),
                within=20 + 3 * number,
                steady=2.0,
            )
        worker.redis.close()


def test_a_cold_shutdown_sends_what_is_known_and_calls_nothing_lost(redis_server: RedisServer, client: Celery, tmp_path: Path) -> None:
    """
    What was lost before is still sent, and tasks that the operator cut short, which Celery calls retries, are no errors.
    """
    with SentryServer(delay=0.5) as sentry:
        worker = Worker("--concurrency=2", redis=redis_server.url, folder=tmp_path, app="reporting", SENTRY_DSN=sentry.dsn)
        worker.redis.flushall()
        with worker:
            for task in ("wait_for_ever", "kill_own_process"):
                client.send_task(f"observed.{task}")
            wait_until(lambda: worker.ran("wait_for_ever") and "WorkerLostError" in worker.log.read_text(), what="one task to be lost")
            worker.stop(signal.SIGQUIT)
        worker.redis.close()

        assert ["observed.kill_own_process"] == [event["transaction"] for event in sentry.events()]
