"""
A sync run: what ``with celery_obs.sync_run(...)`` adds to a block that does nothing, metrics only.

Beside it, in the same rounds: an empty context manager, and the same four metrics kept with prometheus_client in its multiprocess mode.
"""

from __future__ import annotations

import time

from collections.abc import Callable
from typing import Any

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.syncs.api import sync_run
from celery_obs.areas.tasks.events import TaskStarted
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.runtime.hub import ErrorReporter, Hub
from celery_obs.runtime.recording import MetricsObserver
from celery_obs.settings import Settings

from .harness import Limit, Report, fast_folder, in_turns


MICRO = 1e6


class _Empty:
    """
    A context manager that does nothing.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Prometheus:
    """
    The same counters, histogram and gauge, as one writes them with prometheus_client.
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        registry = CollectorRegistry()
        self._total = Counter("sync", "Runs", syncs.TOTAL.labels, registry=registry)
        self._records = Counter("sync_records", "Records", syncs.RECORDS.labels, registry=registry)
        self._duration = Histogram("sync_seconds", "Time", syncs.DURATION.labels, buckets=syncs.DURATION.buckets, registry=registry)
        self._running = Gauge("sync_in_progress", "Now", syncs.IN_PROGRESS.labels, multiprocess_mode="livesum", registry=registry)

    def __enter__(self) -> None:
        self._running.labels("airbnb", "export").inc()
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._running.labels("airbnb", "export").dec()
        self._total.labels("airbnb", "export", "outbound", "success").inc()
        self._duration.labels("airbnb", "export").observe(time.perf_counter() - self._began)
        self._records.labels("airbnb", "export", "updated").inc(3)


def measure(*, quick: bool) -> Report:
    """
    Measure a run inside an attempt of a pool process, and outside any.
    """
    batch, rounds = (500, 3) if quick else (5000, 60)
    with fast_folder() as folder:
        hub = Hub(on_error=ErrorReporter())
        recorder = Recorder(folder, identify=lambda: Identity(node="bench@host", role="child", number=1, attempts=1))
        attempts = AttemptMeter(recorder)
        for event_type, observer in MetricsObserver(recorder, attempts=attempts).subscriptions():
            hub.subscribe(event_type, observer)
        made = engine.Engine(hub=hub, settings=Settings(metrics_dir=folder))
        engine.connect(lambda: made)
        recorder.open()
        attempts.started(TaskStarted("bench.sync", "celery", "id", 0, time.time(), wait=None, clock_skewed=False, due_at=None))
        prometheus, empty = _Prometheus(), _Empty()
        taken = in_turns(
            {
                "empty context manager": _timed(lambda: empty, batch),
                "sync_run": _timed(lambda: sync_run("airbnb", "export"), batch),
                "prometheus_client, 4 metrics": _timed(lambda: prometheus, batch),
            },
            rounds=rounds,
        )
        engine.disconnect()
        recorder.close()
    base = "empty context manager"
    unit = taken.median(base)
    return Report(
        name="sync_run",
        title="a sync run around nothing, with three records",
        columns=("variant", "median µs", "min µs", "added, median µs", "added, min µs", "times empty"),
        rows=[taken.costs(name, base=base, unit=unit) for name in taken.taken],
        limits=[Limit(what="added by sync_run", measured=taken.above("sync_run", base), bound=15.0, unit="µs")],
        notes=[f"{rounds} rounds of {batch} runs a variant, inside an attempt of a pool process; files in memory."],
        samples=taken.taken,
    )


def _timed(block: Callable[[], Any], batch: int) -> Callable[[], float]:
    """
    Return what measures one batch of blocks, in microseconds a block.
    """

    def run() -> float:
        began = time.perf_counter()
        for _ in range(batch):
            with block() as opened:
                if opened is not None:
                    opened.updated(3)
        return (time.perf_counter() - began) / batch * MICRO

    return run
