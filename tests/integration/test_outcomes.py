"""
Every way in which a task can end, on real workers: each attempt is counted once, in the right state.

The expected numbers come from the tasks' own ledger and from what each task is built to do, never from our own counters.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from celery import Celery

from tests.clients import client_of
from tests.servers import RedisServer, wait_until
from tests.workers import Metrics, Worker, celery_version, settle_at


pytestmark = pytest.mark.integration

POOLS = ("prefork", "threads", "gevent", "solo")


class Rig(NamedTuple):
    """
    A running worker, who sends to it, and what it recorded.
    """

    worker: Worker
    client: Celery
    metrics: Metrics
    pool: str


def start(pool: str, redis: RedisServer, folder: Path, **environ: str) -> Rig:
    worker = Worker(f"--pool={pool}", "--concurrency=2", redis=redis.url, folder=folder, name=f"{pool}@test", **environ)
    worker.redis.flushall()
    worker.start()
    return Rig(worker, client_of(redis.url), Metrics(worker.metrics_dir), pool)


@pytest.fixture(scope="module", params=["tracer", "signals"])
def prefork(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    A prefork worker for the whole module, which hears of attempts from the tracer, and one that hears of them by signals.
    """
    environ = {"CELERY_OBS_CALL_IN_TRACER": str(int(request.param == "tracer"))}
    rig = start("prefork", redis_server, tmp_path_factory.mktemp("prefork"), **environ)
    try:
        yield rig
    finally:
        rig.worker.kill()


@pytest.fixture(scope="module", params=POOLS[1:])
def other_pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    A worker of each pool that runs its tasks in one process.
    """
    with RedisServer() as redis:
        rig = start(request.param, redis, tmp_path_factory.mktemp(request.param))
        try:
            yield rig
        finally:
            rig.worker.kill()


SIMPLE = [
    pytest.param("succeed", {"success": 1}, 1, id="success"),
    pytest.param("fail", {"failure": 1}, 1, id="exception"),
    pytest.param("fail_expectedly", {"failure": 1}, 1, id="expected exception"),
    pytest.param("retry_once", {"retry": 1, "success": 1}, 2, id="retry"),
    pytest.param("retry_in_vain", {"retry": 2, "failure": 1}, 3, id="max retries"),
    pytest.param("ignore", {"ignored": 1}, 1, id="Ignore"),
    pytest.param("reject", {"rejected": 1}, 1, id="Reject"),
    pytest.param("reject_and_requeue", {"rejected": 1, "success": 1}, 2, id="Reject(requeue=True)"),
    pytest.param("replace_itself", {"ignored": 1}, 1, id="replace()"),
    pytest.param("return_the_unserialisable", {"failure": 1}, 1, id="unserialisable result"),
    pytest.param("run_another_eagerly", {"success": 1}, 1, id="eager run inside"),
]

DEADLY = [
    pytest.param("exceed_soft_limit", {"failure": 1}, 1, id="soft limit"),
    pytest.param("exceed_hard_limit", {"timeout": 1}, 1, id="hard limit"),
    pytest.param("leave", {"lost": 1}, 1, id="sys.exit"),
    pytest.param("kill_own_process", {"lost": 1}, 1, id="SIGKILL"),
    pytest.param("kill_then_redeliver", {"lost": 1, "success": 1}, 2, id="SIGKILL, reject_on_worker_lost"),
    pytest.param(
        "kill_then_retry",
        {"lost": 1, "success": 1},
        2,
        id="SIGKILL, retry_on_worker_lost",
        marks=pytest.mark.skipif(celery_version() < (5, 7), reason="task_retry_on_worker_lost came with Celery 5.7."),
    ),
]


def check(rig: Rig, task: str, states: dict[str, int], runs: int) -> None:
    rig.client.send_task(f"observed.{task}")

    settle_at({"states": states, "ran": runs}, lambda: {"states": rig.metrics.states(task), "ran": rig.worker.ran(task)}, within=30)
    assert {} == rig.metrics.by("component", "celery_obs_internal_errors_total")


@pytest.mark.parametrize(("task", "states", "runs"), [*SIMPLE, *DEADLY])
def test_every_outcome_is_counted_once_by_a_pool_of_processes(prefork: Rig, task: str, states: dict[str, int], runs: int) -> None:
    """
    On a prefork worker each attempt ends up in one state, the right one, and the states add up to the attempts that were made.
    """
    check(prefork, task, states, runs)


@pytest.mark.parametrize(("task", "states", "runs"), SIMPLE)
def test_every_outcome_is_counted_once_by_a_pool_in_one_process(other_pool: Rig, task: str, states: dict[str, int], runs: int) -> None:
    """
    The same holds for threads, greenlets and the solo pool.
    """
    check(other_pool, task, states, runs)


def revoke_waiting(rig: Rig) -> None:
    result = rig.client.send_task("observed.never_due", countdown=3)
    wait_until(lambda: rig.metrics.find("celery_task_received_total", task="observed.never_due"), what="the task to be received")
    result.revoke()

    settle_at({"revoked": 1}, lambda: rig.metrics.states("never_due"), within=15)
    assert rig.worker.ran("never_due") == 0


def test_a_revoked_task_is_counted_as_revoked(prefork: Rig) -> None:
    """
    A task that is revoked while it waits for its time is counted as revoked when that comes, and never runs.
    """
    revoke_waiting(prefork)


def test_a_revoked_task_is_counted_as_revoked_in_one_process(other_pool: Rig) -> None:
    """
    The same holds for threads, greenlets and the solo pool.
    """
    revoke_waiting(other_pool)


def test_an_expired_task_is_counted_as_revoked(prefork: Rig) -> None:
    """
    A task whose time to start is over ends as revoked, as Celery says.
    """
    prefork.client.send_task("observed.expire", expires=-10)

    settle_at({"revoked": 1}, lambda: prefork.metrics.states("expire"))


def test_a_terminated_task_is_counted_as_terminated(prefork: Rig) -> None:
    """
    A task that is killed by ``revoke(terminate=True)`` is neither lost nor revoked.
    """
    result = prefork.client.send_task("observed.wait_for_ever")
    wait_until(lambda: prefork.worker.ran("wait_for_ever") == 1, what="the task to run")

    result.revoke(terminate=True)

    settle_at({"terminated": 1}, lambda: prefork.metrics.states("wait_for_ever"))


def test_an_unknown_task_is_counted_as_rejected(prefork: Rig) -> None:
    """
    A message for a task that is not registered is counted, and its name, which is unchecked text, is no label.
    """
    prefork.client.send_task("observed.does_not_exist")

    settle_at(
        1,
        lambda: prefork.metrics.find("celery_task_finished_total", task="_unregistered", state="rejected"),
    )


def test_an_eager_run_is_not_the_workers_work(prefork: Rig) -> None:
    """
    What a task runs inside itself with ``apply()`` is part of it, not a task of its own.
    """
    prefork.client.send_task("observed.run_another_eagerly")
    wait_until(lambda: prefork.worker.ran("run_by_another") >= 1, what="the inner task to run")

    settle_at({}, lambda: prefork.metrics.states("run_by_another"))


def test_why_attempts_fail_and_retry_is_told(prefork: Rig) -> None:
    """
    Failures and retries carry the class of the exception, and a failure says whether retries ran out.
    """
    before = {
        key: prefork.metrics.find(*key[:1], task=f"observed.{key[1]}") or 0 for key in [("celery_task_retries_total", "retry_in_vain")]
    }
    prefork.client.send_task("observed.retry_in_vain")

    settle_at(
        before["celery_task_retries_total", "retry_in_vain"] + 2,
        lambda: prefork.metrics.find("celery_task_retries_total", task="observed.retry_in_vain", reason="KeyError"),
    )
    wait_until(
        lambda: (
            prefork.metrics.by("exhausted", "celery_task_failures_total", task="observed.retry_in_vain", exception="KeyError").keys()
            == {"true"}
        ),
        what="the exhausted failure",
    )


def test_nothing_is_in_progress_when_all_is_done(prefork: Rig) -> None:
    """
    However tasks ended, killed ones included, none is shown as running afterwards, and every start has its end.
    """
    settle_at({}, lambda: prefork.metrics.by("task", "celery_task_in_progress"))

    started = prefork.metrics.by("task", "celery_task_started_total")
    finished = prefork.metrics.by("task", "celery_task_finished_total")
    assert started == {task: finished[task] for task in started}
