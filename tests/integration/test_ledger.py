"""
The long run: thousands of mixed tasks, children recycled after a few tasks and killed at random, and every number as the tasks' own ledger has it.

The killer knows what it kills: it stops a child, looks into the ledger whether that child is inside a task's body, and kills it only then.
So which attempts were lost is known from outside, and no kill falls between the end of a body and our counting, where it would be open what is right.
(What happens there is shown store by store in tests/unit/recorder/test_attempts.py.)
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery import Celery
from redis import Redis

from celery_obs.recorder.attempt_log import AttemptLog, Wanted
from tests.clients import client_of
from tests.servers import RedisServer, wait_until
from tests.workers import Metrics, Worker, settle_at


pytestmark = pytest.mark.integration

KINDS = {"fast": 70, "slow": 10, "fail": 8, "retry": 8, "ignore": 4}


class Killer(threading.Thread):
    """
    Kill children of a worker now and then, inside a task's body only, and keep count of what was killed.
    """

    def __init__(self, worker: Worker, *, pause: float) -> None:
        super().__init__(daemon=True)
        self.killed: Counter[str] = Counter()
        self._worker = worker
        self._pause = pause
        self._redis = Redis.from_url(worker.redis_url, decode_responses=True)
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(self._pause):
            try:
                children = self._worker.children()
            except (FileNotFoundError, ProcessLookupError):  # It is being started again, or ends.
                continue
            if children:
                self._kill(random.choice(children))  # any child will do.

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            return
        try:
            wait_until(lambda: _is_stopped(pid), what="the child to stop")
            self._redis.ping()  # Behind this answer, Redis has taken in whatever the child had sent before.
            kind = self._redis.hget("inside", str(pid))
            if kind is not None:
                os.kill(pid, signal.SIGKILL)
                self._redis.hdel("inside", str(pid))
                self.killed[str(kind)] += 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        self._done.set()
        self.join()
        self._redis.close()


def _is_stopped(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in {"T", "Z", "X"}


class Watcher(threading.Thread):
    """
    Scrape every tenth of a second, and take down every counter that went down and every file that came.
    """

    def __init__(self, metrics_dir: Path) -> None:
        super().__init__(daemon=True)
        self.falls: list[str] = []
        self.scrapes = 0
        self.most_files = 0
        self._metrics = Metrics(metrics_dir)
        self._metrics_dir = metrics_dir
        self._done = threading.Event()

    def run(self) -> None:
        last: dict[str, float] = {}
        while not self._done.wait(0.1):
            now = dict(_counters(self._metrics.text()))
            self.falls += [f"{series}: {value} after {last[series]}" for series, value in now.items() if value < last.get(series, 0.0)]
            self.falls += [f"{series} is gone" for series in last.keys() - now.keys()]
            last = now
            self.scrapes += 1
            self.most_files = max(self.most_files, len(list(self._metrics_dir.glob("w1@*/slot-*"))))

    def stop(self) -> None:
        self._done.set()
        self.join()


def _counters(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        name = series.partition("{")[0]
        if name.endswith(("_total", "_bucket", "_count", "_sum")) and not line.startswith("#"):
            yield series, float(value)


def send(client: Celery, kinds: list[str]) -> None:
    with client.producer_pool.acquire(block=True) as producer:
        for kind in kinds:
            client.send_task("observed.mixed", args=(kind,), producer=producer, ignore_result=True)


@pytest.mark.parametrize("tasks", [500, pytest.param(20_000, marks=pytest.mark.faults)])
def test_counts_agree_with_the_ledger_through_recycling_and_kills(redis_server: RedisServer, tmp_path: Path, tasks: int) -> None:
    """
    After thousands of mixed tasks with children that live for seven tasks or until they are shot, each outcome was counted exactly as often as it happened,
    and each attempt is kept once, under its id and with its outcome.
    """
    room = {"CELERY_OBS_ATTEMPT_BYTES": str(1 << 24)}
    worker = Worker("--concurrency=4", "--max-tasks-per-child=7", redis=redis_server.url, folder=tmp_path, **room)
    worker.redis.flushall()
    kinds = random.Random(7).choices([*KINDS], weights=[*KINDS.values()], k=tasks)
    with worker:
        killer, watcher = Killer(worker, pause=0.15), Watcher(worker.metrics_dir)
        killer.start()
        watcher.start()
        send(client_of(redis_server.url), kinds)
        _wait_until_done(worker, killer)
        killer.stop()

        metrics = Metrics(worker.metrics_dir)
        ended = {state: int(count) for state, count in worker.redis.hgetall("mixed:ended").items()}
        ran = sum(int(count) for count in worker.redis.hvals("mixed:ran"))
        lost = sum(killer.killed.values())
        expected = {**ended, "lost": lost} if lost else ended
        settle_at(expected, lambda: metrics.states("mixed"), within=30)
        settle_at(0, lambda: metrics.find("celery_task_in_progress", task="observed.mixed"))
        assert _attempts_of_the_ledger(worker) == _attempts_of_the_rings(worker.metrics_dir)
        watcher.stop()

        assert ran == sum(expected.values())
        assert ran == metrics.find("celery_task_started_total", task="observed.mixed")
        assert ran == metrics.find("celery_task_runtime_seconds_count", task="observed.mixed")
        assert [] == watcher.falls
        assert watcher.scrapes > 20
        assert watcher.most_files <= 5
        assert sum(killer.killed.values()) >= tasks // 1000
        assert {} == dict(metrics.errors.snapshot())
    print(f"\n{ran} attempts, {expected}, {watcher.scrapes} scrapes, {watcher.most_files} slot files")  # noqa: T201 -- for the one who runs it.


def _attempts_of_the_ledger(worker: Worker) -> Counter[str]:
    """
    Return how often an attempt began and ended in each way, by its id and its retries; what began and did not end was lost.
    """
    ended = Counter(str(line) for line in worker.redis.lrange("mixed:outcomes", 0, -1))
    lost = Counter(str(line) for line in worker.redis.lrange("mixed:began", 0, -1))
    lost.subtract(key.rpartition(" ")[0] for key in ended.elements())
    return ended + Counter({f"{key} lost": count for key, count in lost.items()})


def _attempts_of_the_rings(metrics_dir: Path) -> Counter[str]:
    """
    Return the same of what the worker kept, page by page.
    """
    log, wanted, found = AttemptLog(metrics_dir), Wanted(task="observed.mixed", limit=1000), Counter[str]()
    while True:
        answer = log.search(wanted)
        found.update(f"{each.id} {each.retries} {each.state}" for each in answer.attempts)
        if not answer.following:
            return found
        wanted = wanted._replace(after=answer.following)


def _wait_until_done(worker: Worker, killer: Killer) -> None:
    """
    Wait until the queue is empty and no worker is inside a task any more.
    """
    quiet = 0
    deadline = time.monotonic() + 560
    while quiet < 10:
        if time.monotonic() > deadline:
            pytest.fail(f"The tasks were not done in time. The worker's log ends with:\n{worker.tail()}")
        is_quiet = not worker.redis.llen("work") and not worker.redis.hlen("inside") and not worker.redis.hlen("unacked")
        quiet = quiet + 1 if is_quiet else 0
        time.sleep(0.2)
