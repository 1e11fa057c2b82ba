"""
Sentry is down, slow, or says no: the work goes on as if nothing were, and what is not reported is counted.
"""

from __future__ import annotations

import time

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from celery import Celery

from celery_obs.areas.sidecar.metrics import DROPPED
from tests.sentry import PUBLIC_KEY, SentryServer
from tests.servers import RedisServer, free_port, wait_until
from tests.workers import Metrics, Worker, settle_at


pytestmark = pytest.mark.integration

QUEUE_LENGTH = 100
"""
Reports that sentry-sdk keeps in a process until they are sent.
"""


REPORT_SIZE = 600
"""
KiB that one of them takes in memory at most, with the breadcrumbs that it carries.
"""


@contextmanager
def failing(client: Celery, redis: RedisServer, folder: Path, dsn: str, *, concurrency: int = 1) -> Iterator[Worker]:
    folder.mkdir(exist_ok=True)
    worker = Worker(f"--concurrency={concurrency}", redis=redis.url, folder=folder, app="reporting", SENTRY_DSN=dsn)
    worker.redis.flushall()
    try:
        worker.start()
        yield worker
    finally:
        worker.kill()
        worker.redis.close()


def fail(client: Celery, worker: Worker, number: int) -> float:
    """
    Let so many tasks fail; return how long that took.
    """
    before, began = worker.ran("fail"), time.monotonic()
    for _ in range(number):
        client.send_task("observed.fail")
    wait_until(lambda: worker.ran("fail") >= before + number, within=120, what="the tasks to fail")
    took = time.monotonic() - began
    metrics = Metrics(worker.metrics_dir)
    wait_until(lambda: metrics.states("fail").get("failure", 0) >= before + number, what="the last one to end")
    return took


def test_every_report_that_does_not_arrive_is_counted(redis_server: RedisServer, client: Celery, tmp_path: Path) -> None:
    """
    With an endpoint that says no, and then takes a minute to answer, each task comes to its own end, the worker stops in time, and the page
    shows how many reports did not arrive.
    """
    with SentryServer(status=500) as sentry, failing(client, redis_server, tmp_path, sentry.dsn) as worker:
        metrics = Metrics(worker.metrics_dir)
        fail(client, worker, 20)
        settle_at(20.0, lambda: metrics.find(DROPPED.name, reason="errors_not_sent"))
        sentry.delay = 60.0
        fail(client, worker, 5)
        began = time.monotonic()
        worker.stop()

        assert time.monotonic() - began < 10
        assert 25 == metrics.find(DROPPED.name, reason="errors_not_sent")


@pytest.mark.faults
@pytest.mark.parametrize("trouble", ["down", "slow", "500"])
def test_trouble_for_the_whole_run_costs_neither_speed_nor_memory(
    trouble: str, redis_server: RedisServer, client: Celery, tmp_path: Path
) -> None:
    """
    Hundreds of failing tasks take about as long as with an endpoint that is well, the process does not grow, and all that is lost is counted.
    """
    number = 400
    with SentryServer() as well, failing(client, redis_server, tmp_path / "well", well.dsn) as worker:
        fail(client, worker, 2 * QUEUE_LENGTH)
        (child,) = worker.children()
        before = resident(child)
        usual = fail(client, worker, number)
        grown = resident(child) - before  # Celery itself keeps what failed until the next full collection.
        worker.stop()
    with SentryServer(status=500 if trouble == "500" else 200, delay=60.0 if trouble == "slow" else 0.0) as sentry:
        dsn = f"http://{PUBLIC_KEY}@127.0.0.1:{free_port()}/42" if trouble == "down" else sentry.dsn
        with failing(client, redis_server, tmp_path / trouble, dsn) as worker:
            fail(client, worker, 2 * QUEUE_LENGTH)
            (child,) = worker.children()
            before = resident(child)
            took = fail(client, worker, number)
            after = resident(child)
            worker.stop()

            assert took < 1.5 * usual + 1.0
            assert after - before < max(0, grown) + QUEUE_LENGTH * REPORT_SIZE
            assert number + 2 * QUEUE_LENGTH == Metrics(worker.metrics_dir).find(DROPPED.name, reason="errors_not_sent")


def resident(pid: int) -> int:
    """
    Return the memory of a process, in KiB.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
