"""
A whole worker: processor time a task, over a Redis of its own.

Each run starts a worker, lets it drain a first batch, then measures user and system time of all its processes while it drains the second one.
The batches lie in Redis before, and are moved into the queue by one command, so no process publishes while it is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from celery_obs.vocabulary import headers

from . import stack
from .harness import Limit, Report, fast_folder, in_turns


VARIANTS: Final = ("bare", "bare, stamped messages", "celery_obs", "celery-control", "prometheus_client", "events")
QUEUE: Final = "celery"
MICRO: Final = 1e6
_PATIENCE: Final = 180.0


def measure(*, quick: bool) -> Report:
    """
    Measure every variant in turns.
    """
    warm, batch, rounds = (100, 300, 1) if quick else (1000, 6000, 6)
    names = [name for name in VARIANTS if name != "celery-control" or stack.has_celery_control()]
    with own_redis() as port:
        client = redis.Redis(port=port)
        for stamped in (False, True):
            _stage(client, port, "warm", warm, stamped=stamped)
            _stage(client, port, "batch", batch, stamped=stamped)
        runs: dict[str, Callable[[], float]] = {name: partial(_run, client, port, name, batch) for name in names}
        taken = in_turns(runs, rounds=rounds)
    bare = taken.least("bare")
    rows = [
        (name, taken.least(name), taken.median(name), 100 * (taken.least(name) / bare - 1), 100 * (taken.times(name, "bare") - 1))
        for name in names
    ]
    spread = 100 * (statistics.median(taken.taken["bare"]) / bare - 1)
    return Report(
        name="worker_cpu",
        title="processor time of a whole worker a no-op task, over Redis",
        columns=("variant", "best, µs a task", "median, µs a task", "best against best bare, %", "median of pairs, %"),
        rows=rows,
        limits=[
            Limit(
                what="celery_obs against the same worker without, best of each",
                measured=100 * (taken.least("celery_obs") / bare - 1),
                bound=1.0,
                unit="%",
            )
        ],
        notes=[
            "bare, stamped messages: no receivers, but the two headers that our publishers add.",
            f"prefork -c 1, {batch} tasks a run after {warm} to warm up, {rounds} runs a variant in turns; events is the same worker with -E.",
            f"The median of the bare runs is {spread:.1f} % above the best: differences below that need the best, and many runs.",
        ],
        samples=taken.taken,
    )


def _run(client: Any, port: int, variant: str, batch: int) -> float:
    """
    Return the processor time that a fresh worker takes for a task, in microseconds.
    """
    kind = "stamped" if variant in {"celery_obs", "bare, stamped messages"} else "plain"
    with fast_folder() as folder:
        worker = _start(variant, port, folder)
        try:
            _drain(client, worker, f"{kind}:warm")
            before = _cpu_seconds(worker.pid)
            _drain(client, worker, f"{kind}:batch")
            return (_cpu_seconds(worker.pid) - before) / batch * MICRO
        finally:
            _stop(worker)
            client.delete(QUEUE, "unacked", "unacked_index")


def _start(variant: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    if variant in {"celery-control", "prometheus_client"}:
        env["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    env |= {
        "BENCH_VARIANT": variant,
        "BENCH_BROKER": f"redis://127.0.0.1:{port}/0",
        "BENCH_FOLDER": str(folder),
        "BENCH_PORT": str(_free_port()),
    }
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.worker_app", "worker", "--pool", "prefork", "-c", "1", "-l", "WARNING"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-n", f"{variant.partition(',')[0]}@bench"]
    log = (folder / "worker.log").open("wb")
    with log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(20)
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _drain(client: Any, worker: subprocess.Popen[bytes], staged: str) -> None:
    """
    Give the worker a batch, and wait until it has acknowledged the last message.
    """
    client.copy(staged, QUEUE)
    deadline = time.monotonic() + _PATIENCE
    while client.llen(QUEUE) or client.hlen("unacked"):
        if worker.poll() is not None or time.monotonic() > deadline:
            message = f"The worker {'ended' if worker.poll() is not None else 'hangs'} with {client.llen(QUEUE)} messages left of {staged}."
            raise SystemExit(message)
        time.sleep(0.01)


def _cpu_seconds(leader: int) -> float:
    """
    Return the processor time that the session of *leader* has used, to the nanosecond: its pool processes do not end in between.
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in _session(leader))  # What clock_getcpuclockid(3) makes of a process id.


def _session(leader: int) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if os.getsid(int(folder.name)) == leader:
                    yield int(folder.name)


def _stage(client: Any, port: int, name: str, count: int, *, stamped: bool) -> None:
    """
    Put *count* messages aside, as an app with or without us publishes them.
    """
    from celery import Celery

    app = Celery(broker=f"redis://127.0.0.1:{port}/0", set_as_current=False)
    now = time.time()
    app.send_task("shop.tasks.noop", ignore_result=True, headers={headers.PUBLISHED: now, headers.DUE: now} if stamped else None)
    app.close()
    message = json.loads(client.lpop(QUEUE))
    pattern = json.dumps(message)
    task_id, tag = message["headers"]["id"], message["properties"]["delivery_tag"]
    key = f"{'stamped' if stamped else 'plain'}:{name}"
    for start in range(0, count, 1000):
        size = min(1000, count - start)
        client.rpush(key, *(pattern.replace(task_id, str(uuid.uuid4())).replace(tag, str(uuid.uuid4())) for _ in range(size)))


@contextlib.contextmanager
def own_redis() -> Iterator[int]:
    """
    Run a Redis that stores nothing, on a free port of loopback; yield the port.
    """
    with tempfile.TemporaryDirectory(prefix="celery-obs-bench-") as folder:
        port = _free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder]
        try:
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            message = "This benchmark needs redis-server on the PATH, and it is not there. Install Redis, or name the other benchmarks."
            raise SystemExit(message) from None
        try:
            client = redis.Redis(port=port)
            deadline = time.monotonic() + 10
            while not _answers(client, server.pid):
                if time.monotonic() > deadline:
                    message = f"redis-server did not answer on port {port} within 10 s."
                    raise SystemExit(message)
                time.sleep(0.02)
            yield port
        finally:
            server.terminate()
            server.wait()


def _answers(client: Any, pid: int) -> bool:
    try:
        return bool(client.info("server")["process_id"] == pid)
    except redis.RedisError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
