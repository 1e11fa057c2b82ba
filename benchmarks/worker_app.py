"""
The app that the worker of `worker_cpu` loads: one task that does nothing, observed as ``BENCH_VARIANT`` says.
"""

from __future__ import annotations

import contextlib
import os

import celery
import celery.signals


app = celery.Celery("bench", broker=os.environ.get("BENCH_BROKER", "memory://"))
app.conf.update(
    task_ignore_result=True,
    worker_send_task_events=os.environ.get("BENCH_VARIANT") == "events",
    broker_connection_retry_on_startup=True,
)


@app.task(name="shop.tasks.noop")
def noop() -> None:
    """
    Do nothing, so that what is around it shows.
    """


def _measure(**_: object) -> None:
    from benchmarks.pool_child import run_in_child

    run_in_child(app)


_for_life = contextlib.ExitStack()  # Held, for a context manager that is collected leaves its block.


def observe(variant: str) -> None:
    """
    Set up what *variant* names.
    """
    if variant == "celery_obs":
        from celery_obs import setup

        setup(app, metrics_dir=os.environ["BENCH_FOLDER"])
    elif variant == "child":
        from celery_obs import setup

        setup(app, metrics_dir=os.environ["BENCH_FOLDER"], logs=False, traces=False, errors=False)
        celery.signals.worker_process_init.connect(_measure, weak=False)
    elif variant == "celery-control":
        from celery_control import setup_worker

        setup_worker(server_host="127.0.0.1", server_port=int(os.environ["BENCH_PORT"]))
    elif variant == "prometheus_client":
        from benchmarks.stack import prometheus_pair

        _for_life.enter_context(prometheus_pair()())


observe(os.environ.get("BENCH_VARIANT", "bare"))
