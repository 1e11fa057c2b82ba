"""
Brokers that die, hang and come back under load: the page keeps answering, says what it does not know, and recovers by itself.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from celery import Celery
from redis import Redis

import celery_obs

from celery_obs.areas.tasks.metrics import LONGEST_RUNNING
from tests.servers import RabbitMQServer, RedisServer, wait_until
from tests.workers import Worker, samples_in, settle_at

from .conftest import Page, Stage


pytestmark = pytest.mark.integration

TASKS = ("succeed", "fail")
STATES = {"succeed": "success", "fail": "failure"}

PATIENCE = 60.0
"""
Seconds to wait for what has to happen some time: a machine may be slow, and only a failing test waits for so long.
"""

ENOUGH = 5
"""
Scrapes while the broker is away that say how long a page takes.
"""


class Load(threading.Thread):
    """
    A publisher that sends tasks all the time, and tries again when the broker is away.
    """

    def __init__(self, broker: str) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.failed = 0
        self._broker = broker
        self._app = self._make()
        self._done = threading.Event()

    def _make(self) -> Celery:
        app = Celery("load", broker=self._broker, set_as_current=False, task_default_queue="work")
        # A broker that hangs has to be noticed by the sender, too.
        patience = (
            {"socket_timeout": 1, "socket_connect_timeout": 1}
            if self._broker.startswith("redis")
            else {"read_timeout": 1, "write_timeout": 1}
        )
        app.conf.update(broker_connection_timeout=1, broker_transport_options=patience, task_publish_retry=False)
        return app

    def run(self) -> None:
        while not self._done.wait(0.02):
            try:
                self._app.send_task(f"observed.{TASKS[self.sent % len(TASKS)]}", ignore_result=True)
                self.sent += 1
            except Exception:  # noqa: BLE001 -- whatever a client raises when its broker is away.
                self.failed += 1
                self._app.close()
                self._app = self._make()

    def stop(self) -> None:
        self._done.set()
        self.join(20)
        self._app.close()


@contextlib.contextmanager
def load(broker: str) -> Iterator[Load]:
    sender = Load(broker)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


class Watch(threading.Thread):
    """
    Prometheus, impatient: scrapes all the time and remembers what it must never see.

    Attributes:
        delays: Seconds that each page took beyond what a plain answer took beside it; reading the page is not the sidecar's work.

        wrong: What was seen and must not be, and how often.
    """

    def __init__(self, page: Page) -> None:
        super().__init__(daemon=True)
        self.delays: list[float] = []
        self.wrong: Counter[str] = Counter()
        self._page = page
        self._seen: dict[object, float] = {}
        self._families: set[str] = set()
        self._done = threading.Event()

    def run(self) -> None:
        exporter = self._page.exporter
        while not self._done.is_set():
            try:
                page, plain = exporter.get(), exporter.get("/-/healthy")
                samples = samples_in(page.body)
            except Exception as error:  # noqa: BLE001 -- any failed scrape is what we look for.
                self.wrong[f"failed scrape: {error!r}"] += 1
                continue
            if (page.status, plain.status) != (200, 200):
                self.wrong[f"answered {page.status}, and {plain.status} to a plain request"] += 1
                continue
            self._compare(samples)
            self.delays.append(page.seconds - plain.seconds)

    def _compare(self, samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]) -> None:
        # The age of the longest-running task is absent while nothing runs.
        families = {name for name, _ in samples if name.startswith("celery_task_")} - {LONGEST_RUNNING.name}
        for lost in self._families - families:
            self.wrong[f"{lost} is missing"] += 1
        self._families |= families
        for key, value in samples.items():
            if key[0].endswith(("_total", "_count", "_bucket")) and key[0].startswith("celery_"):
                if value < self._seen.get(key, 0.0):
                    self.wrong[f"{key} fell from {self._seen[key]} to {value}"] += 1
                self._seen[key] = value

    def stop(self) -> None:
        self._done.set()
        self.join(PATIENCE)


@contextlib.contextmanager
def watch(page: Page) -> Iterator[Watch]:
    watcher = Watch(page)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.stop()


def check_outage(page: Page, watcher: Watch, *, outage: contextlib.AbstractContextManager[object]) -> None:
    """
    See the queue collector work, fail and grow old while the broker is away, and work again by itself afterwards; see no page wait for it.
    """

    def age() -> float:
        return page.find("celery_obs_collector_age_seconds", collector="queues") or 0.0

    def settle(success: int, collector: str) -> None:
        # Not steadily: where the machine is busy, a collector that is well may be late once.
        settle_at(success, lambda: page.find("celery_obs_collector_success", collector=collector), within=PATIENCE, steady=0)

    wait_until(lambda: page.find("celery_queue_depth", queue="work") is not None, within=PATIENCE, what="the depth of the queue")
    settle(1, "queues")

    with outage:
        settle(0, "queues")
        before, young = len(watcher.delays), age()
        assert young > 0
        wait_until(lambda: age() > young + 1, within=PATIENCE, what="the age to grow")
        settle(1, "workers")
        assert 200 == page.exporter.get("/-/healthy").status
        wait_until(lambda: len(watcher.delays) >= before + ENOUGH, within=PATIENCE, what="pages while the broker is away")
        delays = watcher.delays[before:]

    # One page may meet a machine that is busy; where pages waited for the broker, they all would.
    assert statistics.median(delays) < 1.0
    settle(1, "queues")
    wait_until(lambda: 0 < age() < young + 1, within=PATIENCE, what="the age to be that of a new look")


def counted(page: Page) -> dict[str, float]:
    return {task: sum(page.states(task).values()) for task in TASKS}


def check_recovery(page: Page, worker: Worker, sender: Load) -> None:
    """
    See tasks run again.

    A supervisor would start the worker again that kombu ended: one that the loss meets with a message not acknowledged yet may end with
    an "Unrecoverable error" (``'NoneType' object has no attribute 'hostname'``, kombu issue 582), for its connection is closed twice.
    """
    before, sent = counted(page), sender.sent
    deadline = time.monotonic() + PATIENCE
    while min(counted(page).values()) <= max(before.values()) + 10:
        if not worker.is_alive() and "Unrecoverable error" in worker.log.read_text():
            worker.start()
        if time.monotonic() > deadline:
            pytest.fail(
                f"No tasks ran again: {before} became {counted(page)}, {sender.sent - sent} sent since. "
                f"The worker {'runs' if worker.is_alive() else 'ended'}:\n{worker.tail()}"
            )
        time.sleep(0.05)


def records(log: Path) -> list[str]:
    """
    Return what a worker logged, each record with its traceback.
    """
    return ("\n" + log.read_text()).split("\n[")


def check_ledger(page: Page, worker: Worker) -> None:
    """
    See every task that ran counted once and in its state, and no word of an error of ours in the worker's log.
    """
    with contextlib.closing(Redis.from_url(worker.redis_url, decode_responses=True)) as ledger:

        def ran() -> dict[str, float]:
            return {task: float(ledger.hget("ran", task) or 0) for task in TASKS}

        wait_until(lambda: min(ran().values()) > 10, within=PATIENCE, what="tasks to run")
        wait_until(
            lambda: counted(page) == ran() and not page.find("celery_task_in_progress"),
            within=PATIENCE,
            what="the counts to be the ledger's",
        )
    for task in TASKS:
        assert {STATES[task]} == page.states(task).keys() - {"lost"}
        assert 0 == page.states(task).get("lost", 0)
    # A task body that cannot reach the ledger fails, but never in our code.  Announcing queues, twice a minute, needs the broker, and
    # is said to have failed if its time comes while that is away.
    ours = f"{Path(celery_obs.__file__).parent}/"
    assert [] == [
        record
        for record in records(worker.log)
        if (ours in record or "celery_obs: " in record) and "celery_obs: worker.announce failed" not in record
    ]


@pytest.fixture
def ledger() -> Iterator[RedisServer]:
    """
    A second Redis that stays up, for the ledger.
    """
    with RedisServer() as server:
        yield server


@contextlib.contextmanager
def killed(server: RedisServer | RabbitMQServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.restart()


@pytest.mark.parametrize("way", ["killed", pytest.param("hanging", marks=pytest.mark.faults)])
def test_redis_goes_away_under_load_and_comes_back(open_stage: Callable[[RedisServer], Stage], ledger: RedisServer, way: str) -> None:
    """
    Without Redis the page answers within a second with all task metrics, says that the queues are unknown, and has them again when Redis is back.
    """
    with RedisServer() as broker:
        stage = open_stage(ledger)
        worker = stage.worker(TEST_BROKER=broker.url)
        page = stage.exporter(f"--broker-url={broker.url}")
        with load(broker.url) as sender:
            wait_until(lambda: min(counted(page).values()) > 10, within=PATIENCE, what="tasks to run")
            with watch(page) as watcher:
                check_outage(page, watcher, outage=killed(broker) if way == "killed" else broker.hanging())
                check_recovery(page, worker, sender)
            sender.stop()
        check_ledger(page, worker)

    assert {} == watcher.wrong


def test_rabbitmq_goes_away_under_load_and_comes_back(open_stage: Callable[[RedisServer], Stage], ledger: RedisServer) -> None:
    """
    The same holds for a RabbitMQ that is killed and restarted.
    """
    with RabbitMQServer() as broker:
        stage = open_stage(ledger)
        worker = stage.worker(TEST_BROKER=broker.url)
        page = stage.exporter(f"--broker-url={broker.url}", f"--redis-url={ledger.url}", "--queues=work")
        with load(broker.url) as sender:
            wait_until(lambda: min(counted(page).values()) > 10, within=PATIENCE, what="tasks to run")
            with watch(page) as watcher:
                check_outage(page, watcher, outage=killed(broker))
                check_recovery(page, worker, sender)
            sender.stop()
        check_ledger(page, worker)

    assert {} == watcher.wrong
