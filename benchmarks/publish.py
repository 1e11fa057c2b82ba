"""
Publishing: what observing adds to one message.

The two signals are sent as `celery.app.amqp` sends them, with the headers of a protocol 2 message, without a broker between.
"""

from __future__ import annotations

import time

from collections.abc import Callable
from typing import Any

from celery import signals

from . import stack
from .harness import Limit, Report, fast_folder, in_turns, unchanged
from .hooks import MICRO, QUEUE, TASK, request


def measure(*, quick: bool) -> Report:
    """
    Measure every variant on one pair of signals.
    """
    batch, rounds = (200, 3) if quick else (3000, 60)
    with fast_folder() as folder:
        ours = stack.OurChild(folder, pairs=[(TASK, QUEUE)])
        variants: dict[str, Callable[[], Any]] = {
            "no receivers": unchanged,
            "two empty receivers": lambda: stack.empty_pair(signals.before_task_publish, signals.after_task_publish),
            "celery_obs": ours.connected,
        }
        taken = in_turns({name: _timed(variant, batch) for name, variant in variants.items()}, rounds=rounds)
        ours.recorder.close()
    base = "no receivers"
    empty = taken.above("two empty receivers", base)
    return Report(
        name="publish",
        title="before_task_publish + after_task_publish",
        columns=("variant", "median µs", "min µs", "added, median µs", "added, min µs", "times empty"),
        rows=[taken.costs(name, base=base, unit=empty) for name in variants],
        limits=[Limit(what="added by celery_obs", measured=taken.above("celery_obs", base), bound=4.0, unit="µs")],
        notes=[f"{rounds} rounds of {batch} messages a variant; the empty receivers' share is Celery's signal dispatch."],
        samples=taken.taken,
    )


def _timed(connected: Callable[[], Any], batch: int) -> Callable[[], float]:
    """
    Return what measures one batch with these receivers connected, in microseconds a message.
    """
    before, after = signals.before_task_publish.send, signals.after_task_publish.send
    body: tuple[Any, ...] = ((), {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None})
    policy = {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2}

    def run() -> float:
        plain = {name: value for name, value in request(0, 0.0).items() if not name.startswith("celery_obs")}
        messages = [dict(plain) for _ in range(batch)]
        with connected():
            before(
                sender=TASK, body=body, exchange="", routing_key=QUEUE, declare=[], headers=dict(plain), properties={}, retry_policy=policy
            )
            after(sender=TASK, body=body, headers=dict(plain), exchange="", routing_key=QUEUE)
            began = time.perf_counter()
            for headers in messages:
                before(
                    sender=TASK, body=body, exchange="", routing_key=QUEUE, declare=[], headers=headers, properties={}, retry_policy=policy
                )
                after(sender=TASK, body=body, headers=headers, exchange="", routing_key=QUEUE)
            return (time.perf_counter() - began) / batch * MICRO

    return run
