"""
Contexts on real workers: a task sees what is its own, and nothing of those before it, in every pool.
"""

from __future__ import annotations

import json
import random
import sys

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from celery_obs.vocabulary.headers import CORRELATION
from tests.otlp import Collector
from tests.sentry import SentryServer
from tests.servers import RedisServer, wait_until

from .conftest import Stage


pytestmark = pytest.mark.integration

POOLS = ("prefork", "threads", "gevent", "solo")
HOWS = ("succeed", "fail", "retry", "ignore", "reject")
TIMES = 40


class Contexts(NamedTuple):
    """
    What came of one pool.

    Attributes:
        sent: The trace that each task was sent in, by its id.

        saw: What the tasks saw.

        events: What Sentry was told.
    """

    sent: Mapping[str, str]
    saw: list[Mapping[str, Any]]
    events: list[Mapping[str, Any]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Contexts]]:
    """
    What came of every pool; they run at the same time.
    """
    with RedisServer() as redis, Collector() as collector, SentryServer() as sentry:
        stage = Stage(redis, tmp_path_factory.mktemp("contexts"))
        try:
            yield _run(stage, {**collector.environ, "SENTRY_DSN": sentry.dsn, "CELERY_OBS_LOGS": "1"}, sentry)
        finally:
            stage.close()


def _run(stage: Stage, environ: Mapping[str, str], sentry: SentryServer) -> Mapping[str, Contexts]:
    ledger = stage.make_worker(app="gossiping").redis
    workers = {
        pool: stage.process(
            *(sys.executable, "-m", "celery", "-A", "gossiping", "worker", "-l", "INFO", "-n", f"{pool}@test"),
            *(f"--pool={pool}", f"--queues={pool}", "--concurrency=3"),
            name=pool,
            TEST_QUEUE=pool,
            **environ,
        )
        for pool in POOLS
    }
    sent: dict[str, dict[str, str]] = {}
    ends = {pool: TIMES + TIMES // len(HOWS) for pool in POOLS}  # Those that are tried again look twice.
    for pool in POOLS:
        sent[pool] = {}
        for number, how in enumerate(random.sample(HOWS * (TIMES // len(HOWS)), TIMES)):
            task_id, trace = f"{pool}-{number}", f"{random.getrandbits(128) | 1:032x}"
            sent[pool][task_id] = trace
            headers = {CORRELATION: f"of-{task_id}", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
            stage.client.send_task("gossiping.look", args=[how], task_id=task_id, queue=pool, headers=headers)

    def tell(pool: str) -> Contexts:
        saw = [json.loads(line) for line in ledger.lrange(f"saw:{pool}", 0, -1)]
        events = [event for event in sentry.events() if str(event["tags"].get("task_id", "")).startswith(f"{pool}-")]
        return Contexts(sent[pool], saw, events)

    def is_done(pool: str) -> bool:
        found = tell(pool)
        assert workers[pool].is_alive(), workers[pool].tail()
        return len(found.saw) >= ends[pool] and len(found.events) >= TIMES // len(HOWS)

    for pool in POOLS:
        wait_until(lambda pool=pool: is_done(pool), within=60, what=f"all tasks of {pool}")  # type: ignore[misc]  # a lambda with a default.
    return {pool: tell(pool) for pool in POOLS}


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_sees_its_own_context_only(told: Mapping[str, Contexts], pool: str) -> None:
    """
    Prefork, threads and solo keep their context from one task to the next; what the one before left is not there.
    """
    own = [
        {
            "task_id": seen["task_id"],
            "correlation_id": f"of-{seen['task_id']}",
            "trace": told[pool].sent[seen["task_id"]],
            "bound": {
                "task": "gossiping.look",
                "task_id": seen["task_id"],
                "queue": pool,
                "retries": seen["bound"]["retries"],
                "correlation_id": f"of-{seen['task_id']}",
            },
            "left in the context": None,
            "left with Sentry": None,
        }
        for seen in told[pool].saw
    ]

    assert own == told[pool].saw
    assert set(told[pool].sent) == {seen["task_id"] for seen in told[pool].saw}


@pytest.mark.parametrize("pool", POOLS)
def test_an_error_is_told_with_the_context_of_its_own_task(told: Mapping[str, Contexts], pool: str) -> None:
    """
    What a task left in Sentry's scope is in its own event, together with its own id, correlation and trace.
    """
    for event in told[pool].events:
        task_id = event["tags"]["task_id"]
        assert (task_id, f"of-{task_id}", task_id) == (
            event["tags"]["left"],
            event["tags"]["correlation_id"],
            event["exception"]["values"][-1]["value"],
        )
        assert told[pool].sent[task_id] == event["contexts"]["trace"]["trace_id"]
