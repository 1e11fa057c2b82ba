"""
Which task uses processors and memory, of a real worker's tasks.
"""

from __future__ import annotations

import random

from pathlib import Path

import pytest

from celery_obs.areas.tasks.usage import Usage
from celery_obs.recorder.attempt_log import AttemptLog
from tests.clients import client_of
from tests.servers import RedisServer, wait_until
from tests.workers import Metrics, Worker, settle_at


pytestmark = pytest.mark.integration

LOOK_EVERY = 5
"""
Tasks between two looks at /proc.
"""


def test_the_one_that_burns_and_the_one_that_leaks_are_named_among_fifty(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    Twenty runs of each beside a few of fifty others: most processor time belongs to the one, most memory to the other, and the sum is that of the tasks.
    """
    names = ["usage.burn", "usage.leak", "usage.wait"] * 20 + [f"usage.some-{number}" for number in range(50)] * 3
    random.Random(11).shuffle(names)
    with Worker("--concurrency=2", redis=redis_server.url, folder=tmp_path, app="usage") as worker:
        client = client_of(redis_server.url)
        usage, metrics = Usage(AttemptLog(worker.metrics_dir)), Metrics(worker.metrics_dir)
        for first in range(
            0, len(names), LOOK_EVERY
        ):  # By the count of tasks, not by the clock: how fast they go is this machine's affair.
            for name in names[first : first + LOOK_EVERY]:
                client.send_task(name, ignore_result=True)
            sent = min(first + LOOK_EVERY, len(names))
            wait_until(lambda: metrics.find("celery_task_finished_total") == sent, what=f"{sent} tasks")  # noqa: B023 -- called in this round.
            usage.step()
        settle_at(len(names), lambda: metrics.find("celery_task_finished_total"))

    used = usage.totals
    print({task: (round(total.cpu, 2), round(total.growth / 2**20, 1)) for task, total in used.items() if "some" not in task})  # noqa: T201
    most_cpu = sorted(used, key=lambda task: -used[task].cpu)
    most_memory = sorted(used, key=lambda task: -used[task].growth)
    assert most_cpu[0] == "usage.burn"
    assert most_memory[0] == "usage.leak"
    assert used["usage.leak"].growth > 2 * used[most_memory[1]].growth
    burnt = 20 * 0.12 + 3 * sum(0.005 + number % 5 / 1000 for number in range(50))
    assert sum(total.cpu for total in used.values()) == pytest.approx(burnt, rel=0.5)
    assert used["usage.wait"].cpu < used["usage.burn"].cpu / 3
