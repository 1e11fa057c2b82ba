"""
A metrics directory in which anything may lie: readers and writers go on, and what was not touched is counted exactly.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import shutil
import signal
import sys
import tempfile
import time

from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from celery_obs.areas.tasks.metrics import STARTED
from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Identity, Recorder
from tests.acceptance.conftest import Exporter
from tests.servers import wait_until
from tests.workers import samples_in

from .spoiling import SPOILED, Spoiling, spoilings


CASES: Final = int(os.environ.get("CELERY_OBS_TESTS_FUZZ_CASES", "500"))
SEED: Final = int(os.environ.get("CELERY_OBS_TESTS_FUZZ_SEED", "0"))
GOOD: Final = "good@host"
COUNTED: Final = {"good": 41, "better": 7}
PATIENCE: Final = 1.0
PART: Final = 500
"""
Cases that Hypothesis remembers at once: with twenty thousand in memory, a fork or a collection takes a second by itself.
"""
STARTS: Final = 10  # In one case of as many, a worker starts.
MOST_MEMORY: Final = 64 << 20


Totals: TypeAlias = "dict[tuple[str, tuple[tuple[str, str], ...]], float]"


def record(folder: Path, node: str, counts: dict[str, int], *, number: int = 0) -> None:
    """
    Record what a worker of this name would.
    """
    recorder = Recorder(folder, identify=lambda: Identity(node=node, role="worker", number=number, attempts=1), gauge_limit=8)
    AttemptMeter(recorder)
    for task, count in counts.items():
        recorder.count(STARTED, (task, "celery"), count)
    recorder.close()


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """
    A directory with a node that nothing happens to, and one that anything happens to; in memory, where there are many files to be made.
    """
    memory = Path("/dev/shm")  # noqa: S108 -- with a name that cannot be guessed.
    root = Path(tempfile.mkdtemp(prefix="celery_obs-fuzz-", dir=memory if memory.is_dir() else None))
    folder = root / "template"
    record(folder, GOOD, COUNTED)
    record(folder, SPOILED, {"spoiled": 5})
    record(folder, SPOILED, {"spoiled": 6}, number=1)
    yield folder
    shutil.rmtree(root, ignore_errors=True)


def totals(page: str) -> Totals:
    """
    Return what only grows.
    """
    return {key: value for key, value in samples_in(page).items() if key[0].endswith(("_total", "_bucket", "_count", "_sum"))}


def good(seen: Totals) -> dict[str, float]:
    """
    Return what the page says of the node that nothing happened to.
    """
    return {task: seen.get((STARTED.name, (("queue", "celery"), ("task", task))), -1.0) for task in COUNTED}


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """
    Fail where the machine worked for more than a second, or where something was waited for.
    """

    def stop(*_: object) -> None:
        message = "it waits"
        raise TimeoutError(message)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 20 * PATIENCE)  # Of a machine that does other things, too.
    gc.disable()  # To go through all that Hypothesis remembers of thousands of cases takes a second by itself.
    begin = time.process_time()
    try:
        yield
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - begin < PATIENCE


def resident() -> int:
    """
    Return how much memory this process has.
    """
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def start_worker(folder: Path) -> int:
    """
    Do what a worker does at its start in the spoiled node, in a process of its own; return how that ended: 0 is well.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    with contextlib.suppress(BaseException):
        gc.disable()  # As in `no_hang`.
        begin = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, 20 * PATIENCE)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        logging.disable()
        recorder = Recorder(folder, identify=lambda: Identity(node=SPOILED, role="worker", number=0, attempts=1), gauge_limit=8)
        meter = AttemptMeter(recorder)
        recorder.ready()
        recorder.count(STARTED, ("spoiled", "celery"))
        meter.sweep()
        code = 2 if time.process_time() - begin > PATIENCE else 0
    os._exit(code)


_numbers = itertools.count()


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="What a process has in memory is read from /proc.")
@pytest.mark.parametrize("part", range(-(-CASES // PART)))
def test_anything_in_a_metrics_directory_costs_itself_only(template: Path, part: int) -> None:
    """
    The page can be written and read, what was not touched is exact, no total falls, nothing hangs or grows, and a worker starts.
    """

    @given(steps=st.lists(spoilings, min_size=1, max_size=4))
    @seed(SEED + part)
    @settings(max_examples=min(PART, CASES), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def spoil(steps: list[Spoiling]) -> None:
        check(template, steps)

    spoil()


def check(template: Path, steps: list[Spoiling]) -> None:
    """
    Spoil a directory step by step, and see what becomes of it.
    """
    number = next(_numbers)
    folder = template.with_name(f"case-{number}")
    shutil.copytree(template, folder)
    logging.disable()
    try:
        collector = WorkersCollector(folder, errors=InternalErrors())
        before = totals(collector.collect().text)
        memory = resident()
        for step in steps:
            step.apply(folder)
            with no_hang():
                page = collector.collect()
            now = totals(page.text.encode().decode())
            assert good(now) == COUNTED
            assert [key for key, value in before.items() if now.get(key, -1.0) < value] == []
            before = now
        list(openmetrics_families(page.openmetrics.encode().decode() + "# EOF\n"))
        if number % STARTS == 0:
            assert start_worker(folder) == 0
            with no_hang():
                page = collector.collect()
            now = totals(page.text)
            assert good(now) == COUNTED
            assert [key for key, value in before.items() if now.get(key, -1.0) < value] == []
        assert resident() - memory < MOST_MEMORY
    finally:
        logging.disable(logging.NOTSET)
        shutil.rmtree(folder, ignore_errors=True)
        for node in collector._nodes.values():
            node.close()


def memory_of(pid: int) -> int:
    """
    Return how much memory a process has.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="What a process has in memory is read from /proc.")
def test_a_sidecar_goes_on_beside_anything(template: Path, tmp_path: Path) -> None:
    """
    A sidecar whose directory is spoiled again and again answers each time, with the totals of what was not touched, and does not grow.
    """
    folder = template.with_name("beside")
    shutil.copytree(template, folder)
    exporter = Exporter("--scope=worker", metrics_dir=folder, log=tmp_path / "exporter.log")
    exporter.start()
    try:
        before = totals(exporter.get().body)
        assert exporter.popen is not None
        pid = exporter.popen.pid
        idle = memory_of(pid)

        @seed(SEED)
        @settings(
            phases=[Phase.generate],
            max_examples=max(20, CASES // 10),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(step=spoilings)
        def spoil(step: Spoiling) -> None:
            nonlocal before
            step.apply(folder)
            answer = exporter.get()
            now = totals(answer.body)
            assert (200, COUNTED) == (answer.status, good(now))
            assert [key for key, value in before.items() if now.get(key, -1.0) < value] == []
            assert memory_of(pid) - idle < MOST_MEMORY
            before = now

        spoil()
        record(folder, GOOD, {"good": 1})
        wait_until(lambda: good(totals(exporter.get().body)) == {**COUNTED, "good": COUNTED["good"] + 1}, what="what is counted now")
    finally:
        exporter.kill()
