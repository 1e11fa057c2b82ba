"""
The first metric after a fork, with thousands of series that the parent knows: beside prometheus_client, on the same metrics.

Measured in the child, from the fork's own hook to the first attempt counted; a child that comes first makes a slot's file, all later ones reuse it.
"""

from __future__ import annotations

import gc
import itertools
import os
import struct
import time

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from celery_obs.areas.tasks.events import TaskFinished, TaskStarted
from celery_obs.areas.tasks.metrics import ATTEMPTS, FINISHED, LATENCY, QUEUE_WAIT, RUNTIME, STARTED, STATES
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.vocabulary.spec import Metric

from .harness import Limit, Report, fast_folder, in_turns


TASKS: Final = 44
QUEUE: Final = "celery"
MILLI: Final = 1e3
_USUAL: Final = ("success", "failure", "retry")


def measure(*, quick: bool) -> Report:
    """
    Fork a few children for each variant, in turns.
    """
    rounds = 2 if quick else 20
    gc.freeze()
    with fast_folder() as folder:
        slots = itertools.count(2)
        recorder, first = _ours(folder)
        stock, values = _stock()

        def new_slot() -> float:
            number = next(slots)
            return _in_child(lambda: first(number))

        variants: Mapping[str, Callable[[], float]] = {
            "celery_obs, new slot": new_slot,
            "celery_obs, slot of a child before": lambda: _in_child(lambda: first(1)),
            "prometheus_client, multiprocess": lambda: _in_child(stock),
        }
        first_ever = _in_child(lambda: first(1))
        taken = in_turns(variants, rounds=rounds)
        lanes = recorder.node.layout.lanes if recorder.node is not None else 0
        recorder.close()
    names = list(variants)
    return Report(
        name="fork",
        title="first attempt counted in a forked child, ms",
        columns=("variant", "numbers laid out", "median", "best", "times less than prometheus_client"),
        rows=[
            (name, values if name == names[2] else lanes, taken.median(name), taken.least(name), 1 / taken.times(name, names[2]))
            for name in names
        ],
        limits=[Limit(what=name, measured=taken.median(name), bound=1.0, unit="ms") for name in names[:2]],
        notes=[
            f"{rounds} children a variant, in turns; the very first child of all took {first_ever:.2f} ms.",
            "From the hook that runs in the child after a fork, to one attempt started and finished.",
        ],
        samples=taken.taken,
    )


def _in_child(work: Callable[[], object]) -> float:
    """
    Fork, let the child do *work*, and return how long it says that took, in milliseconds.
    """
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            began = time.perf_counter()
            work()
            os.write(theirs, struct.pack("d", time.perf_counter() - began))
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    answer = os.read(ours, 8)
    os.close(ours)
    os.waitpid(pid, 0)
    seconds: float = struct.unpack("d", answer)[0]
    return seconds * MILLI


def _ours(folder: Path) -> tuple[Recorder, Callable[[int], None]]:
    """
    Lay everything out, and return what a child does with the slot that it is given.
    """
    recorder = Recorder(folder, identify=lambda: Identity(node="worker@bench", role="worker", number=0))
    meter = AttemptMeter(recorder)
    recorder.open()
    meter.prepare([(f"shop.tasks.task_{number}", QUEUE) for number in range(TASKS)])
    now = time.time()
    started = TaskStarted("shop.tasks.task_7", QUEUE, "5c6e2f0a", 0, now, 0.01, False, now - 0.01)  # noqa: FBT003 -- an event's fields, in order.
    finished = TaskFinished(started, "success", 0.001, 0.011, "", False, "")  # noqa: FBT003 -- likewise.

    def first(number: int) -> None:
        recorder.forget_parent()
        recorder.identify = lambda: Identity(node="worker@bench", role="child", number=number, attempts=1)
        recorder.ready()
        meter.started(started)
        meter.finished(finished)
        assert recorder.slot is not None
        assert recorder.slot.words[recorder.word(STARTED, ("shop.tasks.task_7", QUEUE)) or 0] > 0

    return recorder, first


def _stock() -> tuple[Callable[[], None], int]:
    """
    Make the same series with prometheus_client; return what a child does, and how many values there are.
    """
    registry = CollectorRegistry()
    started, finished = _counter(STARTED, registry), _counter(FINISHED, registry)
    wait, latency, attempts = (_histogram(metric, registry) for metric in (QUEUE_WAIT, LATENCY, ATTEMPTS))
    runtime = _histogram(RUNTIME, registry)
    for number in range(TASKS):
        pair = (f"shop.tasks.task_{number}", QUEUE)
        started.labels(*pair).inc()
        for state in STATES:
            finished.labels(*pair, state).inc()
        for state in _USUAL:
            runtime.labels(*pair, state).observe(0.001)
        for histogram in (wait, latency, attempts):
            histogram.labels(*pair).observe(1)

    def first() -> None:
        pair = ("shop.tasks.task_7", QUEUE)
        started.labels(*pair).inc()
        wait.labels(*pair).observe(0.01)
        finished.labels(*pair, "success").inc()
        runtime.labels(*pair, "success").observe(0.001)
        latency.labels(*pair).observe(0.011)
        attempts.labels(*pair).observe(1)

    buckets = sum(len(metric.buckets) + 2 for metric in (QUEUE_WAIT, LATENCY, ATTEMPTS)) + len(_USUAL) * (len(RUNTIME.buckets) + 2)
    return first, TASKS * (1 + len(STATES) + buckets)


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
