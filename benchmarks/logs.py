"""
The canonical line: what logging adds to one traced task that does nothing, above what metrics cost.

Celery's own tracer runs the task, as in ``hooks``; lines go to the null device, or to a file, through the handlers that a worker would have.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import celery
import structlog

from celery import signals
from celery.app.trace import build_tracer

from celery_obs.settings import load
from celery_obs.telemetry.correlation import CorrelationObserver
from celery_obs.telemetry.logs.configure import LogSetup
from celery_obs.telemetry.logs.observer import TaskLogObserver
from celery_obs.telemetry.redaction import Redactor

from . import hooks, stack
from .harness import Limit, Report, disk_folder, fast_folder, in_turns, unchanged


_NOWHERE: Final = os.devnull


def measure(*, quick: bool) -> Report:
    """
    Measure every variant in turns.
    """
    app = celery.Celery("bench", broker="memory://", set_as_current=True)
    app.conf.worker_redirect_stdouts = False
    task = app.task(name=hooks.TASK, ignore_result=True)(_noop)
    app.finalize()
    batch, rounds = (200, 3) if quick else (2000, 30)
    pairs = [(hooks.TASK, hooks.QUEUE)]
    with contextlib.ExitStack() as folders:
        fast, disk = folders.enter_context(fast_folder()), folders.enter_context(disk_folder())
        metrics = stack.OurChild(fast / "metrics", pairs=pairs)
        logs = stack.OurChild(fast / "logs", pairs=pairs, others=[CorrelationObserver(), TaskLogObserver(Redactor(), {})])
        sampled = stack.OurChild(fast / "sampled", pairs=pairs, others=[CorrelationObserver(), TaskLogObserver(Redactor(), {"*": 0.01})])
        variants: dict[str, tuple[Callable[[], Any], int, Callable[[], Any]]] = {
            "metrics only, no lines": (metrics.connected, logging.WARNING, lambda: _celerys(app)),
            "two empty receivers": (
                lambda: stack.empty_pair(signals.task_prerun, signals.task_postrun),
                logging.WARNING,
                lambda: _celerys(app),
            ),
            "neither": (unchanged, logging.WARNING, lambda: _celerys(app)),
            "metrics, Celery's own line": (metrics.connected, logging.INFO, lambda: _celerys(app)),
            "metrics, Celery's own and a line of structlog's": (lambda: _both(metrics), logging.INFO, lambda: _structlogs(fast)),
            "logs, JSON to nowhere": (logs.connected, logging.INFO, lambda: _ours(app, _NOWHERE)),
            "logs, JSON to a file": (logs.connected, logging.INFO, lambda: _ours(app, str(disk / "lines"))),
            "logs, one success in a hundred": (sampled.connected, logging.INFO, lambda: _ours(app, _NOWHERE)),
            "logs, -l WARNING": (logs.connected, logging.WARNING, lambda: _ours(app, _NOWHERE)),
        }
        taken = in_turns({name: _timed(app, task, variant, batch) for name, variant in variants.items()}, rounds=rounds)
        for child in (metrics, logs, sampled):
            child.recorder.close()
    base = "metrics only, no lines"
    added = taken.above("logs, JSON to nowhere", base)
    empty = taken.above("two empty receivers", "neither")
    return Report(
        name="logs",
        title="logs at INFO with the canonical line, on a traced no-op task",
        columns=("variant", "task, median µs", "task, min µs", "added, median µs", "added, min µs", "times empty"),
        rows=[taken.costs(name, base=base, unit=empty) for name in variants],
        limits=[
            Limit(what="added by logs to metrics only", measured=added, bound=30.0, unit="µs"),
            Limit(what="the same as a multiple of two empty receivers", measured=added / empty, bound=7.5, unit="times"),
        ],
        notes=[
            f"{rounds} rounds of {batch} tasks a variant, in processor time, system calls included; Celery's own line goes to the null device, too.",
            "The limit was set where two empty receivers cost 4 µs: their multiple is what carries over to another machine.",
        ],
        samples=taken.taken,
    )


def _noop() -> None:
    """
    Do nothing, so that what is around it shows.
    """


def _timed(app: Any, task: Any, variant: tuple[Callable[[], Any], int, Callable[[], Any]], batch: int) -> Callable[[], float]:
    """
    Return what measures one batch, in microseconds of processor time a task.
    """
    connected, level, logging_of = variant

    def run() -> float:
        requests = [hooks.request(number, time.time() - 0.02) for number in range(batch)]
        with logging_of(), connected():
            logging.getLogger().setLevel(level)
            # Whether Celery writes lines is settled when it builds the tracer.
            trace = build_tracer(task.name, app.tasks[task.name], app=app)
            began = time.process_time()
            for facts in requests:
                trace(facts["id"], (), {}, facts)
            return (time.process_time() - began) / batch * hooks.MICRO

    return run


@contextlib.contextmanager
def _handled(handler: logging.Handler) -> Iterator[None]:
    root = logging.getLogger()
    root.handlers = [handler]
    try:
        yield
    finally:
        root.handlers = []
        handler.close()


def _celerys(app: Any) -> Any:
    """
    Log as a worker does by itself.
    """
    handler = logging.FileHandler(_NOWHERE)
    handler.setFormatter(logging.Formatter(app.conf.worker_log_format))
    return _handled(handler)


@contextlib.contextmanager
def _ours(app: Any, path: str) -> Iterator[None]:
    setup = LogSetup(app, load({}, {"CELERY_OBS_METRICS_DIR": _NOWHERE}, {}))
    setup.receive(loglevel=logging.INFO, logfile=path)
    try:
        yield
    finally:
        setup.disconnect()


def _structlogs(folder: Path) -> Any:
    """
    Log through structlog's formatter, as its documentation shows.
    """
    handler = logging.FileHandler(_NOWHERE)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
        )
    )
    return _handled(handler)


@contextlib.contextmanager
def _both(metrics: stack.OurChild) -> Iterator[None]:
    """
    Connect receivers that bind the task's context and write a line, as one writes them after structlog's documentation.
    """
    log = structlog.wrap_logger(
        logging.getLogger("bench"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    began: dict[str, float] = {}

    def prerun(task_id: str, task: Any, **_: object) -> None:
        began[task_id] = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(task_id=task_id, task=task.name)

    def postrun(task_id: str, state: str, **_: object) -> None:
        log.info("task_finished", state=state, duration_ms=round((time.perf_counter() - began.pop(task_id)) * 1000.0, 3))

    with metrics.connected(), stack.connected([(signals.task_prerun, prerun), (signals.task_postrun, postrun)]):
        try:
            yield
        finally:
            structlog.contextvars.clear_contextvars()
