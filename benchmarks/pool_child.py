"""
Inside a real pool child: what observing adds to one traced task, metrics only.

A prefork worker is started on a Redis of its own; once its child has set itself up, a receiver of ``worker_process_init`` runs the task's own tracer there,
bare, with two empty receivers, and with what `celery_obs.setup` put around it or connected, in turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from celery import signals

from celery_obs.runtime.plugin import plugin
from celery_obs.runtime.signals import connect, disconnect, hear_by_signals, hear_in_tracer

from . import stack
from .harness import Limit, Report, Samples, fast_folder, in_turns, unchanged
from .hooks import MICRO, TASK, request
from .worker_cpu import own_redis


_PATIENCE: Final = 300.0
BASE: Final = "no receivers"
EMPTY: Final = "two empty receivers"
OURS: Final = "celery_obs"
IN_PLACE: Final = "celery_obs, receivers called by the tracer"
BY_SIGNALS: Final = "celery_obs, by signals"


def measure(*, quick: bool) -> Report:
    """
    Start the worker, and wait for what its child measured.
    """
    batch, rounds = (200, 3) if quick else (1500, 30)
    with own_redis() as port, fast_folder() as folder:
        result = folder / "result.json"
        env = {**os.environ, "BENCH_VARIANT": "child", "BENCH_BROKER": f"redis://127.0.0.1:{port}/0", "BENCH_FOLDER": str(folder)}
        env |= {"BENCH_BATCH": str(batch), "BENCH_ROUNDS": str(rounds)}
        env.pop("PROMETHEUS_MULTIPROC_DIR", None)
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.worker_app", "worker", "--pool", "prefork", "-c", "1", "-l", "WARNING"]
        with (folder / "worker.log").open("wb") as log:
            worker = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + _PATIENCE
            while not result.exists():
                if worker.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"The worker gave no result:\n{(folder / 'worker.log').read_text()[-3000:]}")  # noqa: EM102, TRY003
                time.sleep(0.1)
            told = json.loads(result.read_text())
        finally:
            worker.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(20)
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
    taken = Samples(told["taken"])
    empty = taken.above(EMPTY, BASE)
    return Report(
        name="pool_child",
        title="prerun + postrun on a traced no-op task, inside a real prefork child",
        columns=("variant", "task, median µs", "task, min µs", "added, median µs", "added, min µs", "times empty"),
        rows=[taken.costs(name, base=BASE, unit=empty) for name in taken.taken],
        limits=[
            Limit(
                what="added as a multiple of two empty receivers, around the tracer",
                measured=taken.above(OURS, BASE) / empty,
                bound=0.6,
                unit="times",
            ),
            Limit(what="the same by signals", measured=taken.above(BY_SIGNALS, BASE) / empty, bound=1.6, unit="times"),
        ],
        notes=[f"{rounds} rounds of {batch} tasks a variant; {told['counted']} of {told['ran']} attempts counted."],
        samples=taken.taken,
    )


def run_in_child(app: Any) -> None:
    """
    Measure in this pool child, and write the result where the benchmark waits for it.
    """
    ours = plugin()
    assert ours is not None
    batch, rounds = int(os.environ["BENCH_BATCH"]), int(os.environ["BENCH_ROUNDS"])
    around = ours._around  # noqa: SLF001 -- what it put there is taken away for the others.
    assert around is not None
    traced = app.tasks[TASK].__trace__
    trace = traced.__wrapped__

    @contextlib.contextmanager
    def observed(*, in_tracer: bool) -> Iterator[None]:
        around.take_away()
        connect(ours.receivers)
        if in_tracer and not hear_in_tracer():
            raise SystemExit("The tracer is not as expected.")  # noqa: EM101, TRY003
        try:
            yield
        finally:
            hear_by_signals()
            disconnect()
            around.put(app.tasks)

    variants: dict[str, Callable[[], Any]] = {
        BASE: unchanged,
        EMPTY: lambda: stack.empty_pair(signals.task_prerun, signals.task_postrun),
        IN_PLACE: lambda: observed(in_tracer=True),
        BY_SIGNALS: lambda: observed(in_tracer=False),
    }
    timers = {name: timed(trace, variant, batch) for name, variant in variants.items()}
    taken = in_turns({**timers, OURS: timed(traced, unchanged, batch)}, rounds=rounds)
    recorder = ours.recorder
    assert recorder is not None
    from celery_obs.areas.tasks.metrics import STARTED

    ours.flush()
    word = recorder.word(STARTED, (TASK, "celery"))
    counted = 0 if word is None or recorder.slot is None else recorder.slot.words[word]
    folder = Path(os.environ["BENCH_FOLDER"])
    (folder / "result.new").write_text(json.dumps({"taken": taken.taken, "counted": counted, "ran": 3 * rounds * batch}))
    (folder / "result.new").replace(folder / "result.json")


def timed(trace: Any, connected: Callable[[], Any], batch: int) -> Callable[[], float]:
    """
    Return what measures one batch with these receivers connected, in microseconds of this process's processor time a task.
    """

    def run() -> float:
        requests = [request(number, time.time() - 0.02) for number in range(batch)]
        with connected():
            began = time.process_time()
            for facts in requests:
                trace(facts["id"], (), {}, facts)
            return (time.process_time() - began) / batch * MICRO

    return run
