"""
The sample app: tasks that behave in all the ways in which tasks behave, and the syncs of a small channel manager.

Celery reads the broker from CELERY_BROKER_URL, and celery_obs its settings from CELERY_OBS_….
"""

from __future__ import annotations

import os
import random
import signal
import time

from celery import Celery, Task
from celery.exceptions import Ignore, Reject

import celery_obs

from . import syncs


__all__ = ["app"]


app = Celery("celery_obs_demo")
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 1  # What is taken ahead has no priority any more.
app.conf.task_routes = {"demo.deliver_alert": {"queue": "alerts"}}
app.conf.beat_schedule = {
    "every-two-seconds": {"task": "demo.scheduled", "schedule": 2.0},
    "every-five-seconds": {"task": "demo.scheduled", "schedule": 5.0},
}
celery_obs.setup(app)
syncs.add_to(app)


class ProviderError(Exception):
    """
    What the imagined provider answers when it does not want.
    """


@app.task(name="demo.fast")  # type: ignore[untyped-decorator]  # Celery has no annotations.
def fast() -> None:
    """
    Do next to nothing.
    """


@app.task(name="demo.slow")  # type: ignore[untyped-decorator]
def slow() -> None:
    """
    Take a while.
    """
    time.sleep(random.uniform(0.2, 1.5))  # noqa: S311 -- no secret hangs on it.


@app.task(name="demo.failing")  # type: ignore[untyped-decorator]
def failing() -> None:
    """
    Fail each time.
    """
    message = "The provider said no."
    raise ProviderError(message)


@app.task(name="demo.retrying", bind=True, max_retries=3)  # type: ignore[untyped-decorator]
def retrying(self: Task) -> None:
    """
    Succeed at the third attempt.
    """
    if self.request.retries < 2:  # noqa: PLR2004 -- the third is the one after two.
        raise self.retry(exc=ProviderError("The provider is busy."), countdown=0.5)


@app.task(name="demo.giving_up", bind=True, max_retries=1)  # type: ignore[untyped-decorator]
def giving_up(self: Task) -> None:
    """
    Fail until no retry is left.
    """
    raise self.retry(exc=ProviderError("The provider is away."), countdown=0.5)


@app.task(name="demo.crashing")  # type: ignore[untyped-decorator]
def crashing() -> None:
    """
    Kill its own process, as the kernel's OOM killer would.
    """
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="demo.too_long", time_limit=1)  # type: ignore[untyped-decorator]
def too_long() -> None:
    """
    Be killed by the time limit.
    """
    time.sleep(30)


@app.task(name="demo.rejecting")  # type: ignore[untyped-decorator]
def rejecting() -> None:
    """
    Refuse the message.
    """
    message = "No connection can do this work."
    raise Reject(message, requeue=False)


@app.task(name="demo.ignoring")  # type: ignore[untyped-decorator]
def ignoring() -> None:
    """
    Find that there is nothing to do.
    """
    raise Ignore


@app.task(name="demo.deliver_alert")  # type: ignore[untyped-decorator]
def deliver_alert() -> None:
    """
    Tell a subscriber, over a queue of its own.
    """
    time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 -- as above.


@app.task(name="demo.scheduled")  # type: ignore[untyped-decorator]
def scheduled() -> None:
    """
    Be published by beat.
    """
