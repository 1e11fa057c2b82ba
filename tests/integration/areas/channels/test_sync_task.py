"""
Sync tasks on real workers: how they end, who is paused, and what a kill leaves behind.
"""

from __future__ import annotations

import json
import os
import signal
import time

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from celery import Celery

from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.areas.channels.syncs.metrics import HELD_BACK, IN_PROGRESS, RECORDS, TOTAL
from celery_obs.areas.tasks.metrics import ATTEMPTS
from celery_obs.state import keys
from tests.clients import client_of
from tests.servers import RedisServer, wait_until
from tests.workers import Metrics, Worker, settle_at


pytestmark = pytest.mark.integration


class Rig(NamedTuple):
    """
    A running worker, who sends to it, and what it recorded.
    """

    worker: Worker
    client: Celery
    metrics: Metrics

    def send(self, task: str, *args: object, **options: object) -> str:
        return str(self.client.send_task(f"syncing.{task}", args=args, **options).id)

    def value(self, task: str) -> object:
        """
        Return what a task left in the ledger.  Not by its result: who waits for one in Celery 5.4 goes on looking for the Redis when that is gone.
        """
        wait_until(lambda: self.worker.redis.hexists("values", task), within=20, what=f"the end of {task}")
        return json.loads(str(self.worker.redis.hget("values", task)))

    def statuses(self, sync: str, channel: str = "airbnb") -> dict[str, float]:
        return self.metrics.by("status", TOTAL.name, channel_type=channel, sync_type=sync)


def start(pool: str, redis: RedisServer, folder: Path) -> Rig:
    worker = Worker(f"--pool={pool}", "--concurrency=2", redis=redis.url, folder=folder, name=f"{pool}@test", app="syncing")
    worker.redis.flushall()
    worker.start()
    return Rig(worker, client_of(redis.url), Metrics(worker.metrics_dir))


@pytest.fixture(scope="module")
def prefork(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    A prefork worker for the whole module.
    """
    rig = start("prefork", redis_server, tmp_path_factory.mktemp("prefork"))
    try:
        yield rig
    finally:
        rig.worker.kill()
        rig.worker.redis.close()


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    A worker whose pool is of threads.
    """
    with RedisServer() as redis:
        rig = start("threads", redis, tmp_path_factory.mktemp("threads"))
        try:
            yield rig
        finally:
            rig.worker.kill()
            rig.worker.redis.close()


SIMPLE = {
    "succeed": ({"success": 1}, 1),
    "part": ({"partial": 1}, 1),
    "fail": ({"failure": 1}, 1),
    "skip": ({"skipped": 1}, 1),
    "retry_once": ({"retry": 1, "success": 1}, 2),
    "refused": ({"failure": 1}, 1),
}
DEADLY = {
    "kill": ({"failure": 1}, 1),
    "hang": ({"failure": 1}, 1),
}


def check(rig: Rig, task: str, statuses: dict[str, int], runs: int) -> None:
    rig.send(task, "c-1")

    settle_at((statuses, runs), lambda: (rig.statuses(task), rig.worker.ran(task)), within=30)


@pytest.mark.parametrize("task", [*SIMPLE, *DEADLY])
def test_every_outcome_of_a_sync_is_counted_once(prefork: Rig, task: str) -> None:
    """
    Each attempt of a sync task is one run: what it returned, raised, or died of.
    """
    check(prefork, task, *{**SIMPLE, **DEADLY}[task])


@pytest.mark.parametrize("task", SIMPLE)
def test_every_outcome_of_a_sync_is_counted_once_by_threads(threads: Rig, task: str) -> None:
    """
    The same holds in a pool of threads.
    """
    check(threads, task, *SIMPLE[task])


def test_records_and_series_at_zero_are_there(prefork: Rig) -> None:
    """
    Records come from what the task returned; outcomes that never came exist at 0.
    """
    prefork.send("part", "c-2")

    wait_until(lambda: prefork.metrics.find(RECORDS.name, sync_type="part", result="updated"), what="the records")
    assert 0 == prefork.metrics.find(TOTAL.name, sync_type="wait_for_ever", status="failure")
    assert 0 == prefork.metrics.find("channel_api_errors_total", channel_type="airbnb", error_type="timeout")


def test_the_cluster_learns_how_a_connection_fares(prefork: Rig) -> None:
    """
    A success says when; failures are counted in a row; nothing of it is written by the task itself.
    """
    redis = prefork.worker.redis

    prefork.send("fail", "c-fails")
    prefork.send("succeed", "c-works")

    wait_until(lambda: redis.hget(keys.ERRORS, "c-fails") == "1", what="the failure")
    wait_until(lambda: redis.hget(keys.LAST_SYNCS, "c-works"), what="the success")


def test_a_run_inside_a_plain_task_is_counted_when_its_process_is_killed(prefork: Rig) -> None:
    """
    Not only sync tasks: any run in the process of an attempt is found.
    """
    prefork.send("block", "kill")

    settle_at({"failure": 1}, lambda: prefork.statuses("inside", "booking"))


def test_what_runs_is_shown_and_is_gone_right_after_a_kill(prefork: Rig) -> None:
    """
    The gauge counts runs of living processes, so a kill takes its run away at once.
    """

    def running() -> float:
        return prefork.metrics.find(IN_PROGRESS.name, sync_type="wait_for_ever") or 0.0

    before = set(prefork.worker.children())
    prefork.send("wait_for_ever", "c-1")
    wait_until(lambda: running() == 1.0, what="the run to be shown")

    for pid in before:
        os.kill(pid, signal.SIGKILL)

    wait_until(lambda: running() == 0.0, within=3, what="the run to be gone")
    settle_at({"failure": 1}, lambda: prefork.statuses("wait_for_ever"))
    wait_until(lambda: len(set(prefork.worker.children()) - before) >= 2, what="new children")


def pause(rig: Rig, channel: str) -> Pauses:
    pauses = Pauses(rig.worker.redis)
    pauses.pause(channel, actor="test", reason="test")
    return pauses


def held_back(rig: Rig, sync: str) -> float:
    return rig.metrics.find(HELD_BACK.name, sync_type=sync) or 0.0


def hold_and_release(rig: Rig) -> None:
    channel = "expedia"
    pauses = pause(rig, channel)
    task_id = rig.send("pull", channel, 0)
    wait_until(lambda: held_back(rig, "dynamic") >= 2, what="the task to be held back")
    assert (0, {}) == (rig.worker.ran("pull"), rig.statuses("dynamic", channel))

    pauses.resume(channel)

    assert {"id": task_id, "retries": 0, "priority": 0, "queue": "work"} == rig.value(f"pull {channel}")
    settle_at(({"success": 1}, 1), lambda: (rig.statuses("dynamic", channel), rig.worker.ran("pull")))
    assert {"success": 1, "ignored": held_back(rig, "dynamic")} == rig.metrics.by(
        "state", "celery_task_finished_total", task="syncing.pull"
    )
    assert 1 == rig.metrics.find(f"{ATTEMPTS.name}_count", task="syncing.pull")
    assert rig.metrics.find("celery_task_retries_total", task="syncing.pull") in {None, 0.0}


def test_a_paused_channels_task_waits_and_is_the_same_when_it_comes_back(prefork: Rig) -> None:
    """
    It is not lost, not failed, not a retry: one id, no retries, one attempt, and it runs when the channel is resumed.
    """
    hold_and_release(prefork)


def test_threads_hold_back_too(threads: Rig) -> None:
    """
    The same holds in a pool of threads.
    """
    hold_and_release(threads)


def test_a_task_held_back_in_a_chain_goes_on_with_it(prefork: Rig) -> None:
    """
    What follows in a chain, a group and a chord follows after the pause, once, with the result as a dictionary.
    """
    pauses = pause(prefork, "airbnb")
    known_at = time.monotonic() + 1.1  # A worker's answer is good for a second.
    wait_until(lambda: time.monotonic() > known_at, what="the workers to know")
    already = held_back(prefork, "succeed")
    prefork.send("compose")
    wait_until(lambda: held_back(prefork, "succeed") >= already + 3, what="the tasks to be held back")

    pauses.resume("airbnb")

    assert {"created": 1, "updated": 2, "failed": 0, "skipped": 0, "status": None, "connection_id": ""} == prefork.value("after")
    assert 2 == prefork.value("total")
    assert 1 == prefork.worker.ran("after")


def test_attempts_go_on_being_counted_across_a_pause(prefork: Rig) -> None:
    """
    A task that was retried before its channel was paused has the retries that it had.
    """
    task_id = prefork.send("pull", "vrbo", 1)

    assert {"id": task_id, "retries": 1, "priority": 0, "queue": "work"} == prefork.value("pull vrbo")
    settle_at({"retry": 1, "success": 1}, lambda: prefork.statuses("dynamic", "vrbo"))
