"""
Where a real worker's attempts are, asked by a signal: whatever holds the GIL, and without harm.
"""

from __future__ import annotations

import os
import signal
import time

from pathlib import Path

import pytest

from celery_obs.recorder.attempt_log import AttemptLog, Wanted
from celery_obs.recorder.stacks import NoStackError, Stack, ask
from tests.clients import client_of
from tests.servers import RedisServer, wait_until
from tests.workers import Metrics, Worker, settle_at


pytestmark = pytest.mark.integration

SIGNAL = "SIGRTMIN+3"


def a_worker(redis: RedisServer, folder: Path, *arguments: str, **environ: str) -> Worker:
    return Worker(*arguments, redis=redis.url, folder=folder, app="hanging", CELERY_OBS_STACK_SIGNAL=SIGNAL, **environ)


def number_of(worker: Worker, task: str) -> int:
    """
    Wait until *task* runs, and return the number of its process.
    """
    log = AttemptLog(worker.metrics_dir)

    def running() -> list[int]:
        if not worker.metrics_dir.exists():
            return []
        return [attempt.process for attempt in log.search(Wanted(task=f"hanging.{task}", state=("running",))).attempts]

    wait_until(lambda: bool(running()), within=60, what=f"{task} to run")
    return running()[0]


def result_of(worker: Worker, task_id: str) -> str:
    wait_until(lambda: worker.redis.hexists("results", task_id), within=60, what="the task to end")
    return str(worker.redis.hget("results", task_id))


def place_in(stack: Stack, task: str) -> bool:
    """
    Tell whether the first thread is at *task*.
    """
    return stack.threads[0].runs_attempt and any(
        "hanging.py:" in frame and frame.endswith(f" in {task}") for frame in stack.threads[0].frames
    )


@pytest.mark.parametrize(
    "pool", ["prefork", pytest.param("threads", marks=pytest.mark.faults), pytest.param("solo", marks=pytest.mark.faults)]
)
def test_an_attempt_tells_where_it_hangs_and_ends_as_it_would_have(redis_server: RedisServer, tmp_path: Path, pool: str) -> None:
    """
    In a regular expression that holds the GIL, in a sleep and in a read: the line of the task is shown, and its result is right.
    """
    client = client_of(redis_server.url)
    with a_worker(redis_server, tmp_path, f"--pool={pool}", "--concurrency=2") as worker:
        for task, argument, expected in (("in_a_pattern", 24, "no match"), ("in_a_sleep", 1.5, "slept"), ("in_a_read", 1.5, "late")):
            sent = client.send_task(f"hanging.{task}", (argument,), ignore_result=True)
            number = number_of(worker, task)
            begin = time.monotonic()
            stack = ask(worker.metrics_dir, worker.name, number, patience=20)
            print(pool, task, f"{time.monotonic() - begin:.3f} s", stack.threads[0].frames[:3], flush=True)  # noqa: T201
            assert place_in(stack, task), stack
            assert [attempt.id for attempt in stack.attempts] == [sent.id]
            assert result_of(worker, sent.id) == expected


@pytest.mark.faults
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_hundred_questions_cost_no_task(redis_server: RedisServer, tmp_path: Path, pool: str) -> None:
    """
    Two hundred quick tasks, and as many questions as fit until they are through, a hundred at least: each is counted once, as a success, with its right result.
    """
    client = client_of(redis_server.url)
    with a_worker(redis_server, tmp_path, f"--pool={pool}", "--concurrency=2") as worker:
        metrics = Metrics(worker.metrics_dir)
        sent = [client.send_task("hanging.quick", (number,), ignore_result=True).id for number in range(200)]
        numbers = (1, 2) if pool == "prefork" else (0,)
        answered = 0
        for turn in range(100):
            answered += bool(ask(worker.metrics_dir, worker.name, numbers[turn % len(numbers)], patience=20).threads)
        settle_at({"success": 200.0}, lambda: metrics.states_of("hanging.quick"), within=60)
        assert answered == 100
        results = worker.redis.hgetall("results")
        assert [results.get(task_id) for task_id in sent] == [str(sum(range(20_000)) + number) for number in range(200)]
        assert worker.is_alive()


def test_a_process_that_follows_a_dead_one_answers_for_itself(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    A killed pool process is followed by another in its place, which answers; what the dead one said of itself is not believed.
    """
    with a_worker(redis_server, tmp_path, "--concurrency=1") as worker:
        wait_until(lambda: _answers(worker, 1), within=60, what="the first process to answer")
        before = worker.children()[0]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: worker.children() not in ([], [before]), within=60, what="another process")
        wait_until(lambda: _answers(worker, 1), within=60, what="the second process to answer")


def test_a_signal_that_is_taken_is_left_alone(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    Where the program has a handler for it, one line says so, and the asker is told.
    """
    with a_worker(redis_server, tmp_path, "--concurrency=2", TEST_TAKES="3") as worker:
        wait_until(lambda: "has a handler already" in _why(worker, 1), within=60, what="the refusal")
        log = worker.log.read_text()

    assert log.count("stacks cannot be asked for: SIGRTMIN+3 has a handler already. Set stack_signal to another signal") == 1


def test_without_the_setting_nothing_is_sent(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    By default no process answers, and the asker is told what to set.
    """
    with Worker("--concurrency=1", redis=redis_server.url, folder=tmp_path, app="hanging") as worker:
        wait_until(lambda: "Set stack_signal" in _why(worker, 1), within=60, what="the refusal")
        assert "There is no node 'celery@nowhere'" in _why(worker, 1, "celery@nowhere")
        assert "No process 77" in _why(worker, 77)


def _answers(worker: Worker, number: int) -> bool:
    return not _why(worker, number)


def _why(worker: Worker, number: int, node: str = "") -> str:
    try:
        ask(worker.metrics_dir, node or worker.name, number)
    except (NoStackError, OSError) as error:
        return str(error)
    return ""
