"""
What if there were more processes: the answer held against a real worker that has them.
"""

from __future__ import annotations

import random
import time

from pathlib import Path

import pytest

from celery_obs.areas.tasks.simulation import Answer, Run, simulate
from celery_obs.recorder.attempt_log import AttemptLog, Wanted
from celery_obs.vocabulary import headers
from tests.clients import client_of
from tests.servers import RedisServer
from tests.workers import Metrics, Worker, settle_at


pytestmark = pytest.mark.integration

TASKS = 150


def work_off(redis: RedisServer, folder: Path, *, processes: int) -> list[Run]:
    """
    Let a worker with so many processes work off a backlog, and return what it recorded.
    """
    folder.mkdir()
    worker = Worker(f"--concurrency={processes}", "--prefetch-multiplier=1", redis=redis.url, folder=folder, name=f"w{processes}@test")
    worker.redis.flushall()
    naps = random.Random(5)
    client = client_of(redis.url)
    with worker:
        for _ in range(TASKS):
            stamps = dict.fromkeys((headers.PUBLISHED, headers.DUE), time.time())
            client.send_task("observed.succeed", args=(naps.choice([0.01, 0.02, 0.04, 0.1]),), ignore_result=True, headers=stamps)
        metrics = Metrics(worker.metrics_dir)
        settle_at(TASKS, lambda: metrics.states("succeed").get("success", 0), within=60)
    found = AttemptLog(worker.metrics_dir).search(Wanted(limit=1000)).attempts
    return [Run((each.node, each.process), each.started_at, each.runtime, each.wait, is_asked_about=True) for each in found]


def test_the_model_tells_what_more_processes_do(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    From the records of one process it tells how long tasks wait before three, as a worker with three shows: within a fifth.
    """
    one = work_off(redis_server, tmp_path / "one", processes=1)
    three = work_off(redis_server, tmp_path / "three", processes=3)

    answer: Answer = simulate(one, more=2)
    real = simulate(three, more=0).measured

    print(f"\n{answer}\nreal: {real}")  # noqa: T201 -- for the one who runs it.
    assert len(one) == len(three) == TASKS
    assert answer.simulated.p95 == pytest.approx(answer.measured.p95, rel=0.1)
    assert answer.changed.p95 == pytest.approx(real.p95, rel=0.2)
    assert answer.changed.median == pytest.approx(real.median, rel=0.2)
    assert answer.changed.p95 < answer.measured.p95 / 2
