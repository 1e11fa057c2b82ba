"""
An app that does with Redis all that a sync engine does, for who has to give it the rights.
"""

from __future__ import annotations

import os

from celery import Celery

import celery_obs


app = Celery("permitted", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BROKER"])
app.conf.update(
    task_default_queue="work",
    broker_connection_retry_on_startup=True,
    worker_redirect_stdouts=False,
    beat_schedule={"often": {"task": "permitted.book", "schedule": 1.0, "args": ["c-1"]}},
    celery_obs={
        "channels": {
            "airbnb": {"circuit_breaker": {"failure_threshold": 3}, "rate_limits": ["1000/1m", {"limit": "9000/1h", "per": "channel"}]},
        },
        "beat_schedule": True,
    },
)
celery_obs.setup(app)


@app.task(base=celery_obs.SyncTask, channel_type="airbnb", connection_argument="connection_id")
def book(connection_id: str) -> None:
    with celery_obs.api_call("airbnb", "/bookings", "GET", connection_id=connection_id) as call:
        call.response(200)


@app.task(base=celery_obs.SyncTask, channel_type="airbnb", connection_argument="connection_id")
def fail(connection_id: str) -> None:
    raise ConnectionError("the channel is away")
