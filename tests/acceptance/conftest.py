"""
What acceptance tests share: a stage with worker, beat and sidecar as processes of their own, and the eyes of an operator.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from celery import Celery
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from tests.clients import _clients_of_a_module_are_closed, _clients_of_a_test_are_closed, client_of  # noqa: F401 -- used by being here.
from tests.servers import RedisServer, free_port, wait_until
from tests.workers import APPS, Metrics, Process, Worker


if TYPE_CHECKING:
    from .schedules import Schedules


OUR_APPS = Path(__file__).parent / "apps"


class Answer(NamedTuple):
    """
    What the sidecar answered, and how long it took.
    """

    status: int
    body: str
    content_type: str
    seconds: float


class Exporter(Process):
    """
    The sidecar, on a port of its own.
    """

    def __init__(self, *arguments: str, metrics_dir: Path, log: Path, **environ: str) -> None:
        self.port = free_port()
        address = f"--web.listen-address=127.0.0.1:{self.port}"
        super().__init__(
            [sys.executable, "-m", "celery_obs.cli", "exporter", f"--metrics-dir={metrics_dir}", address, *arguments],
            log=log,
            environ=environ,
        )

    def start(self) -> None:
        """
        Start, and wait until it serves.
        """
        super().start()

        def answers() -> bool:
            if not self.is_alive():
                pytest.fail(f"The exporter ended with {self.popen and self.popen.returncode}:\n{self.tail()}")
            try:
                return self.get("/-/healthy").status == 200
            except OSError:
                return False

        wait_until(answers, what="the exporter to serve")

    def get(self, path: str = "/metrics", *, accept: str = "text/plain") -> Answer:
        """
        Ask as Prometheus does.
        """
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Accept": accept})
        begin = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- our own.
                body, status, headers = answer.read(), answer.status, answer.headers
        except urllib.error.HTTPError as refused:
            with refused:
                body, status, headers = refused.read(), refused.code, refused.headers
        return Answer(status, body.decode(), headers.get("Content-Type", ""), time.monotonic() - begin)


class Page(Metrics):
    """
    What an operator sees on a sidecar's ``/metrics``.
    """

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter

    def text(self) -> str:
        """
        Scrape.
        """
        answer = self.exporter.get()
        assert 200 == answer.status
        return answer.body

    def families(self) -> set[str]:
        """
        Return the names of the families that are shown.
        """
        return {family.name for family in text_string_to_metric_families(self.text())}


class Stage:
    """
    All processes of one test, on one metrics directory; `close` ends them.
    """

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis = redis
        self.folder = folder
        self.metrics_dir = folder / "metrics"
        self.metrics_dir.mkdir()
        self.client: Celery = client_of(redis.url)
        self._started: list[Process] = []
        self._workers: list[Worker] = []

    @property
    def environ(self) -> dict[str, str]:
        """
        The environment that makes the apps of the tests work here.
        """
        return {
            "TEST_BROKER": self.redis.url,
            "TEST_LEDGER": self.redis.url,
            "CELERY_OBS_METRICS_DIR": str(self.metrics_dir),
            "CELERY_OBS_HEARTBEAT_INTERVAL": "0.5",
            "CELERY_OBS_BEAT_SCHEDULE": "0",  # As for workers.
            "PYTHONPATH": os.pathsep.join([str(OUR_APPS), str(APPS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        }

    def make_worker(
        self, *arguments: str, name: str = "w1@test", app: str = "observed", redis: str | None = None, **environ: str
    ) -> Worker:
        """
        Make a worker that is not yet started.
        """
        words = arguments if any(word.startswith("--concurrency") for word in arguments) else ("--concurrency=2", *arguments)
        worker = Worker(*words, redis=redis or self.redis.url, folder=self.folder, name=name, app=app, **{**self._path(), **environ})
        self._started.append(worker)
        self._workers.append(worker)
        return worker

    def worker(self, *arguments: str, name: str = "w1@test", app: str = "observed", redis: str | None = None, **environ: str) -> Worker:
        """
        Start a worker.
        """
        worker = self.make_worker(*arguments, name=name, app=app, redis=redis, **environ)
        worker.start()
        return worker

    def exporter(self, *arguments: str, **environ: str) -> Page:
        """
        Start a sidecar, with an eye on the queues.
        """
        asked = arguments or (f"--broker-url={self.redis.url}",)
        exporter = Exporter(*asked, metrics_dir=self.metrics_dir, log=self.folder / "exporter.log", **environ)
        self._started.append(exporter)
        exporter.start()
        return Page(exporter)

    def beat(self, *, app: str = "observed", **environ: str) -> Process:
        """
        Start beat.
        """
        return self.process(
            sys.executable,
            "-m",
            "celery",
            "-A",
            app,
            "beat",
            "-l",
            "INFO",
            f"--schedule={self.folder}/schedule",
            "--pidfile=",
            name="beat",
            **environ,
        )

    def process(self, *command: str, name: str, **environ: str) -> Process:
        """
        Start any other program in the tests' environment.
        """
        process = Process(list(command), log=self.folder / f"{name}.log", environ={**self.environ, **environ}, cwd=self.folder)
        self._started.append(process)
        process.start()
        return process

    def run(self, *command: str, name: str, **environ: str) -> tuple[int, str]:
        """
        Run a program to its end; return its exit code and all that it wrote.
        """
        log = self.folder / f"{name}.log"
        before = len(log.read_text()) if log.exists() else 0
        process = self.process(*command, name=name, **environ)
        code = process.wait(40)
        return code, log.read_text()[before:]

    def slots(self) -> list[str]:
        """
        Return the slot files in the directory, as ``folder/file``.
        """
        return sorted(f"{path.parent.name}/{path.name}" for path in self.metrics_dir.glob("*/slot-*") if path.suffix != ".lock")

    def _path(self) -> dict[str, str]:
        return {"PYTHONPATH": self.environ["PYTHONPATH"]}

    def close(self) -> None:
        for process in reversed(self._started):
            process.kill()
        for worker in self._workers:
            worker.redis.close()


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_shared_redis: RedisServer) -> RedisServer:
    """
    A Redis with nothing in it; tests that break it take one of their own.
    """
    with Redis.from_url(_shared_redis.url) as client:
        client.flushall()
    return _shared_redis


@pytest.fixture
def stage(redis_server: RedisServer, tmp_path: Path) -> Iterator[Stage]:
    """
    A stage on the shared Redis.
    """
    made = Stage(redis_server, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def open_stage(tmp_path: Path) -> Iterator[Callable[[RedisServer], Stage]]:
    """
    Makes a stage on a Redis of the test's own.
    """
    made: list[Stage] = []

    def open_it(redis: RedisServer) -> Stage:
        made.append(Stage(redis, tmp_path))
        return made[-1]

    try:
        yield open_it
    finally:
        for each in made:
            each.close()


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Schedules], None]:
    database = tmp_path_factory.mktemp("database") / "empty.sqlite3"

    def give(schedules: Schedules) -> None:
        if not database.exists():
            schedules.change("migrate")
            shutil.copy(schedules.database, database)
        shutil.copy(database, schedules.database)

    return give


@pytest.fixture
def schedules(stage: Stage, _migrated: Callable[[Schedules], None]) -> Schedules:
    """
    A stage for schedulers.
    """
    pytest.importorskip("django_celery_beat")
    pytest.importorskip("redbeat")
    from .schedules import Schedules

    stage.__class__ = Schedules
    assert isinstance(stage, Schedules)
    _migrated(stage)
    return stage


def complaints(promtool: str, page: str) -> list[str]:
    """
    Return what promtool says of *page*, line by line.
    """
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=30)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
