"""
An app that has nothing but our own tasks, and a way to die in the middle of a refresh.

The set ``die_at`` in Redis names points; a process that reaches one of them takes it out and is gone.
"""

from __future__ import annotations

import os
import signal

from celery import Celery
from redis import Redis

import celery_obs

from celery_obs.areas.channels.tokens import api as tokens


BROKER = os.environ["TEST_BROKER"]

app = Celery("refreshing", broker=BROKER, backend=BROKER)
app.conf.update(task_default_queue="work", broker_connection_retry_on_startup=True, worker_redirect_stdouts=False)
celery_obs.setup(app)


def die(point: str) -> None:
    """
    End this process if it is to end here.
    """
    with Redis.from_url(BROKER) as redis:
        if redis.srem("die_at", point):
            os.kill(os.getpid(), signal.SIGKILL)


tokens.reached = die
tokens.LEAD = 2.0  # type: ignore[misc]  # No test waits a quarter of a minute for the dead here.
