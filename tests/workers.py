"""
Real workers for tests, and eyes to look at what they recorded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import celery
import pytest

from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exporter.scrape import InternalErrors
from tests.servers import wait_until


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["APPS", "Metrics", "Process", "Worker", "celery_version", "samples_in", "settle_at"]


APPS = Path(__file__).parent / "integration" / "apps"


def celery_version() -> tuple[int, int]:
    """
    Return Celery's version, as far as it matters.
    """
    major, minor, *_ = celery.__version__.split(".")
    return int(major), int(minor)


def samples_in(text: str, *, name: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """
    Return every sample on a page, or those whose names begin with *name*, by name and sorted labels.
    """
    if name:  # Reading a whole page for one number, many times a second, is what keeps a test's machine busy.
        text = "\n".join([*(line for line in text.split("\n") if line.startswith(name)), ""])
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Metrics:
    """
    What the sidecar would show of a metrics directory.
    """

    def __init__(self, metrics_dir: Path) -> None:
        self.metrics_dir = metrics_dir
        self.errors = InternalErrors()
        self._collector = WorkersCollector(metrics_dir, errors=self.errors)

    def text(self) -> str:
        """
        Scrape.
        """
        return self._collector.collect().text

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """
        Scrape, and return every sample by name and sorted labels.
        """
        return samples_in(self.text())

    def _called(self, name: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return samples_in(self.text(), name=name)

    def find(self, name: str, **labels: str) -> float | None:
        """
        Return the sum of the samples called *name* that have *labels*; None if there are none.
        """
        wanted = set(labels.items())
        found = [value for (sample, has), value in self._called(name).items() if sample == name and wanted <= set(has)]
        return sum(found) if found else None

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """
        Return the samples called *name* that have *labels* and are not 0, by the value of *label*.
        """
        wanted = set(labels.items())
        found: dict[str, float] = {}
        for (sample, has), value in self._called(name).items():
            if sample == name and wanted <= set(has) and value:
                key = dict(has)[label]
                found[key] = found.get(key, 0.0) + value
        return found

    def states(self, task: str) -> dict[str, float]:
        """
        Return how the attempts of ``observed.<task>`` ended.
        """
        return self.states_of(f"observed.{task}")

    def states_of(self, task: str) -> dict[str, float]:
        """
        Return how the attempts of *task* ended.
        """
        return self.by("state", "celery_task_finished_total", task=task)


PATIENCE = 60.0
"""
Seconds in which a process ends that is told to.

A pool process that is told so just when a task ends waits for half a minute for its worker to take the result, which stops reading first and then waits
for the process (billiard.pool, GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT): so does Celery without us.
"""


class Process:
    """
    A process of a test: started on entering, gone on leaving, its output in a file.
    """

    def __init__(self, command: list[str], *, log: Path, environ: Mapping[str, str], cwd: Path = APPS) -> None:
        self.log = log
        self.command = command
        self._environ = {**os.environ, "CELERY_OBS_LOGS": "0", **environ}  # Plain lines, where it is not about ours.
        self._cwd = cwd
        self.popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(  # the command is the test's own.
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environ, cwd=self._cwd, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    def is_alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, within: float = PATIENCE) -> int:
        """
        Wait for the process to end by itself.
        """
        assert self.popen is not None
        try:
            return self.popen.wait(within)
        except subprocess.TimeoutExpired:
            pytest.fail(f"The process did not end within {within:g} s. Its log ends with:\n{self.tail()}")

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = PATIENCE) -> int:
        """
        Ask the process to end, and wait for it.
        """
        self.send(number)
        return self.wait(within)

    def kill(self) -> None:
        """
        End the process and all that it started, at once.
        """
        if self.popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait(10)

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


class Worker(Process):
    """
    A Celery worker of the observed app, on a Redis of the test's.
    """

    def __init__(self, *arguments: str, redis: str, folder: Path, name: str = "w1@test", app: str = "observed", **environ: str) -> None:
        self.metrics_dir = folder / "metrics"
        self.redis_url = redis
        self.redis: Redis = Redis.from_url(redis, decode_responses=True)
        self.name = name
        super().__init__(
            [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", "-n", name, *arguments],
            log=folder / f"{name}.log",
            environ={
                "TEST_BROKER": redis,
                "TEST_LEDGER": redis,
                "CELERY_OBS_METRICS_DIR": str(self.metrics_dir),
                "CELERY_OBS_HEARTBEAT_INTERVAL": "0.5",
                "CELERY_OBS_BEAT_SCHEDULE": "0",  # The tests' own entries are enough, where it is not about ours.
                "PYTHONPATH": os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
                **environ,
            },
        )

    def start(self) -> None:
        """
        Start, and wait until the worker consumes.
        """
        before = self.log.read_text(errors="replace").count(" ready.") if self.log.exists() else 0
        super().start()

        def is_ready() -> bool:
            if not self.is_alive():
                pytest.fail(f"The worker ended with {self.popen and self.popen.returncode}:\n{self.tail()}")
            return self.log.read_text(errors="replace").count(" ready.") > before

        wait_until(is_ready, within=40, what="the worker to be ready")

    def ran(self, task: str) -> int:
        """
        Return how often the ledger saw the body of *task*.
        """
        return int(self.redis.hget("ran", task) or 0)

    def children(self) -> list[int]:
        """
        Return the ids of the main process's children.
        """
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


def settle_at(expected: object, seen: Callable[[], object], *, within: float = 40.0, steady: float = 0.3) -> None:
    """
    Wait until *seen* returns *expected*, and see that it stays so for a while: a count that comes twice is as wrong as none.
    """
    deadline = time.monotonic() + within
    while (last := seen()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    end = time.monotonic() + steady
    while last == expected and time.monotonic() < end:
        time.sleep(0.05)
        last = seen()
    assert expected == last, f"Expected {expected}, saw {last}."
