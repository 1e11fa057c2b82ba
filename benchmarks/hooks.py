"""
Prerun and postrun: what observing adds to one traced task.

Celery's own tracer runs a task that does nothing, with a request as a pool child gets it; the difference to the same without receivers is ours.
"""

from __future__ import annotations

import contextlib
import time

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import celery

from celery import signals
from celery.app.trace import build_tracer

from celery_obs.vocabulary import headers

from . import stack
from .harness import Limit, Report, disk_folder, fast_folder, in_turns, unchanged


TASK: Final = "shop.tasks.noop"
QUEUE: Final = "celery"
MICRO: Final = 1e6


def measure(*, quick: bool) -> Report:
    """
    Measure every variant on one tracer.
    """
    app = celery.Celery("bench", broker="memory://", set_as_current=True)
    task = app.task(name=TASK, ignore_result=True)(_noop)
    app.finalize()
    trace = build_tracer(task.name, app.tasks[task.name], app=app)
    batch, rounds = (200, 3) if quick else (2000, 60)
    with contextlib.ExitStack() as folders:
        fast, disk = folders.enter_context(fast_folder()), folders.enter_context(disk_folder())
        traced = stack.OurChild(folders.enter_context(fast_folder()), pairs=[(TASK, QUEUE)], exemplar=lambda: 1 << 127)
        bare = stack.OurChild(folders.enter_context(fast_folder()), pairs=[(TASK, QUEUE)], attempt_bytes=0)
        ours, on_disk = (stack.OurChild(folder, pairs=[(TASK, QUEUE)]) for folder in (fast, disk))
        variants: dict[str, Callable[[], Any]] = {
            "no receivers": unchanged,
            "two empty receivers": lambda: stack.empty_pair(signals.task_prerun, signals.task_postrun),
            "celery_obs": partial(ours.connected, in_tracer=True),
            "celery_obs, no attempts kept": partial(bare.connected, in_tracer=True),
            "celery_obs, by signals": ours.connected,
            "celery_obs, exemplars": traced.connected,
            "celery_obs, files on disk": on_disk.connected,
            "prometheus_client, 4 metrics": stack.prometheus_pair(),
        }
        if stack.has_celery_control():
            variants["celery-control"] = stack.celery_control_connected()
        taken = in_turns({name: _timed(trace, variant, batch) for name, variant in variants.items()}, rounds=rounds)
        bare.recorder.close()
        ours.recorder.close()
        on_disk.recorder.close()
        traced.recorder.close()
    base = "no receivers"
    empty = taken.above("two empty receivers", base)
    rows = [taken.costs(name, base=base, unit=empty) for name in variants]
    added = taken.above("celery_obs", base)
    return Report(
        name="hooks",
        title="prerun + postrun on a traced no-op task",
        columns=("variant", "task, median µs", "task, min µs", "added, median µs", "added, min µs", "times empty"),
        rows=rows,
        limits=[
            Limit(what="added by celery_obs", measured=added, bound=8.0, unit="µs"),
            Limit(what="the same as a multiple of two empty receivers", measured=added / empty, bound=2.0, unit="times"),
        ],
        notes=[f"{rounds} rounds of {batch} tasks a variant; the empty receivers' share is Celery's signal dispatch."],
        samples=taken.taken,
    )


def _noop() -> None:
    """
    Do nothing, so that what is around it shows.
    """


def request(number: int, published: float) -> dict[str, Any]:
    """
    Return what a pool child gets with a task that was published *published* seconds since the epoch.
    """
    task_id = f"5c6e2f0a-0d6f-4c39-9f0b-{number:012x}"
    return {
        "lang": "py",
        "task": TASK,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "gen1@bench",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        headers.PUBLISHED: published,
        headers.DUE: published,
        headers.CORRELATION: task_id,
        "properties": {"correlation_id": task_id, "delivery_mode": 2, "priority": 0},
        "reply_to": "5c6e2f0a-0d6f-4c39-9f0b-c8d1f2a3b4c5",
        "correlation_id": task_id,
        "hostname": "worker@bench",
        "delivery_info": {"exchange": "", "routing_key": QUEUE, "priority": 0, "redelivered": False},
        "args": [],
        "kwargs": {},
        "is_eager": False,
        "callbacks": None,
        "errbacks": None,
        "chain": None,
        "chord": None,
    }


def _timed(trace: Any, connected: Callable[[], Any], batch: int) -> Callable[[], float]:
    """
    Return what measures one batch with these receivers connected, in microseconds a task.
    """

    def run() -> float:
        requests = [request(number, time.time() - 0.02) for number in range(batch)]
        with connected():
            began = time.perf_counter()
            for facts in requests:
                trace(facts["id"], (), {}, facts)
            return (time.perf_counter() - began) / batch * MICRO

    return run
