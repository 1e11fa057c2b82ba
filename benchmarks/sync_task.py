"""
A sync task on a real worker: how many commands of Redis it takes in all, beside a plain task, as Redis itself counts them.

Those that scripts call inside Redis are counted, too.  The broker is the same Redis; results are ignored, for what they cost is the same for both.
"""

from __future__ import annotations

import json
import tempfile

from pathlib import Path
from typing import Any, Final

from celery import Celery

from tests.servers import RedisServer, wait_until
from tests.workers import Worker

from .harness import Limit, Report


CHANNELS: Final = {
    "airbnb": {},
    "limited": {"rate_limits": [{"limit": "100000/1h"}, {"limit": "100000/1h", "per": "channel"}]},
    "windowed": {"circuit_breaker": {"failure_rate": 0.5}},
}


def measure(*, quick: bool) -> Report:
    """
    Count, for tasks that come one after the other without a pause.
    """
    count, rounds = (100, 1) if quick else (1000, 3)
    variants = {
        "a plain task": ("plain", ""),
        "a sync task, one API call": ("call", "airbnb"),
        "a sync task, with a failure rate": ("call", "windowed"),
        "a sync task, two rate limits": ("call", "limited"),
    }
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        worker = Worker("--concurrency=2", redis=server.url, folder=Path(folder), app="limited", TEST_CHANNELS=json.dumps(CHANNELS))
        client = Celery("client", broker=server.url, backend=server.url, set_as_current=False, task_default_queue="work")
        worker.start()
        try:
            taken = {
                name: [_count(worker.redis, client, task, channel, count=count) for _ in range(rounds)]
                for name, (task, channel) in variants.items()
            }
        finally:
            worker.kill()
            worker.redis.close()
            client.close()
    least = {name: min(values) for name, values in taken.items()}
    plain, sync, *_ = variants
    return Report(
        name="sync_task",
        title="commands of Redis a task",
        columns=("variant", "all", "above a plain task"),
        rows=[(name, value, value - least[plain]) for name, value in least.items()],
        limits=[Limit(what=f"{sync}, commands", measured=least[sync], bound=13.0, unit="commands")],
        notes=[
            f"{rounds} rounds of {count} tasks a variant, without results; the least of the rounds. From publishing to the acknowledgement."
        ],
        samples=taken,
    )


def _count(redis: Any, client: Celery, task: str, channel: str, *, count: int) -> float:
    _run(client, redis, task, channel, 20)  # What is done once a minute is done.
    redis.config_resetstat()
    _run(client, redis, task, channel, count)
    found = redis.info("commandstats")
    ours = {"cmdstat_info", "cmdstat_config|resetstat", "cmdstat_hlen", "cmdstat_del"}
    ledger = ("cmdstat_hset", count)  # The task notes that it is done.
    total = sum(each["calls"] for name, each in found.items() if name not in ours)
    return float((total - ledger[1]) / count)


def _run(client: Celery, redis: Any, task: str, channel: str, count: int) -> None:
    redis.delete("done")
    with client.producer_or_acquire() as producer:
        for number in range(count):
            client.send_task(f"limited.{task}", args=(number, channel), producer=producer, ignore_result=True)
    wait_until(lambda: redis.hlen("done") == count, within=120, what="the tasks to be done")
