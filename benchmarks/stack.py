"""
Our receivers and their alternatives, to connect and disconnect at will: what a pool child has, without the pool.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import time

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from celery import signals

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.runtime.apps import Apps
from celery_obs.runtime.hub import ErrorReporter, Hub
from celery_obs.runtime.observers import Observer, Observers
from celery_obs.runtime.publishing import Publishing
from celery_obs.runtime.recording import MetricsObserver
from celery_obs.runtime.signals import Receivers, connect, disconnect, hear_in_tracer
from celery_obs.runtime.translate import QueueNames


__all__ = [
    "NoLifecycle",
    "OurChild",
    "celery_control_connected",
    "connected",
    "empty_pair",
    "has_celery_control",
    "prometheus_pair",
    "raise_error",
]


class NoLifecycle:
    """
    No process comes or goes in a benchmark.
    """

    def publisher_started(self) -> bool:
        """
        Do nothing.
        """
        return True

    def child_started(self, node: str | None) -> None:
        """
        Do nothing.
        """

    def child_stopping(self, exitcode: int) -> None:
        """
        Do nothing.
        """

    def program_started(self, sender: Any) -> None:
        """
        Nothing.
        """

    def beat_started(self, service: Any) -> None:
        """
        Do nothing.
        """


class OurChild:
    """
    What a pool child has of us: a slot for one attempt at a time, the attempts, the hub, the receivers.

    Args:
        folder: The metrics directory.

        pairs: Tasks and queues that the main process would lay out before the fork.

        others: Observers besides that of metrics, in the order in which they hear of beginnings.

        exemplar: Tells the trace of an attempt; None where nothing traces.

        attempt_bytes: How many bytes it keeps of its latest attempts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pairs: list[tuple[str, str]],
        others: Sequence[Observer] = (),
        exemplar: Callable[[], int] | None = None,
        attempt_bytes: int = 1 << 20,
    ) -> None:
        self.recorder = Recorder(
            folder, identify=lambda: Identity(node="worker@bench", role="child", number=1, attempts=1), attempt_bytes=attempt_bytes
        )
        self.recorder.exemplar = exemplar
        self.meter = AttemptMeter(self.recorder)
        self.hub = Hub(on_error=raise_error)
        Observers(self.hub).connect([MetricsObserver(self.recorder, attempts=self.meter)], others)
        self.receivers = Receivers(self.hub, queues=QueueNames(list), lifecycle=NoLifecycle(), publishing=Publishing(self.hub, Apps()))
        self.recorder.open()
        self.meter.prepare(pairs)

    @contextlib.contextmanager
    def connected(self, *, in_tracer: bool = False) -> Iterator[None]:
        """
        Listen to Celery's signals for a while; called by its dispatch, or by the tracer.
        """
        connect(self.receivers)
        if in_tracer and not hear_in_tracer():
            raise SystemExit("The tracer is not as expected.")  # noqa: EM101, TRY003 -- for the one who measures.
        try:
            yield
        finally:
            disconnect()


def raise_error(error: Exception, *, component: str) -> None:
    """
    A benchmark of failing receivers would measure nothing: let the error through to the caller.
    """
    ErrorReporter()(error, component=component)
    raise SystemExit(1)


@contextlib.contextmanager
def empty_pair(*pair: Any) -> Iterator[None]:
    """
    Connect receivers that do nothing to the signals of *pair*: what Celery's dispatch alone costs.
    """

    def first(**_: object) -> None:
        return

    def second(**_: object) -> None:
        return

    with connected(zip(pair, (first, second), strict=True)):
        yield


@contextlib.contextmanager
def connected(table: Any) -> Iterator[None]:
    """
    Connect each receiver in *table* to its signal for a while.
    """
    pairs = list(table)
    for signal, receiver in pairs:
        signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        for signal, receiver in pairs:
            signal.disconnect(receiver)


_versions = itertools.count()


def prometheus_pair() -> Any:
    """
    Return a context manager factory: receivers as one writes them after the client's README, with two counters, a histogram and a gauge.
    """
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    registry = CollectorRegistry()
    prefix = f"naive{next(_versions)}"
    started = Counter(f"{prefix}_started", "Started.", ("task",), registry=registry)
    finished = Counter(f"{prefix}_finished", "Finished.", ("task", "state"), registry=registry)
    runtime = Histogram(f"{prefix}_runtime_seconds", "Runtime.", ("task",), registry=registry)
    in_progress = Gauge(f"{prefix}_in_progress", "In progress.", ("task",), multiprocess_mode="livesum", registry=registry)
    began: dict[str, float] = {}

    def prerun(task_id: str, task: Any, **_: object) -> None:
        began[task_id] = time.perf_counter()
        started.labels(task.name).inc()
        in_progress.labels(task.name).inc()

    def postrun(task_id: str, task: Any, state: str, **_: object) -> None:
        runtime.labels(task.name).observe(time.perf_counter() - began.pop(task_id))
        finished.labels(task.name, state).inc()
        in_progress.labels(task.name).dec()

    return lambda: connected([(signals.task_prerun, prerun), (signals.task_postrun, postrun)])


def has_celery_control() -> bool:
    """
    Tell whether the rival is installed.
    """
    return importlib.util.find_spec("celery_control") is not None


def celery_control_connected() -> Any:
    """
    Return a context manager factory for celery-control's receivers of tasks, as its ``setup_worker`` connects them.
    """
    from prometheus_client import CollectorRegistry

    metrics = importlib.import_module("celery_control.metrics")
    receivers = importlib.import_module("celery_control.receivers.task_signals_receiver")
    importlib.import_module("celery_control.conf").state.worker_name = "worker@bench"
    metrics.register_worker_metrics(CollectorRegistry())
    table = [
        (signals.task_prerun, receivers._receive_task_prerun),  # noqa: SLF001 -- it has no other way to disconnect them.
        (signals.task_postrun, receivers._receive_task_postrun),  # noqa: SLF001
        (signals.task_success, receivers._receive_task_success),  # noqa: SLF001
    ]
    return lambda: connected(table)
