"""
An app of sync tasks whose provider has a ledger, for what happens when our own rules hold them back.

The provider is down while the key ``provider:down`` exists.  Its ledger is a list of the times, in microseconds, at which calls arrived.
"""

from __future__ import annotations

import json
import os

from typing import Any

from celery import Celery, Task
from redis import Redis

import celery_obs

from celery_obs import circuit_breaker, rate_limiter
from celery_obs.areas.channels.api_calls.api import api_call
from celery_obs.areas.channels.errors import CircuitOpenError, LimitReachedError


BROKER = os.environ["TEST_BROKER"]

app = Celery("limited", broker=BROKER, backend=BROKER)
app.conf.update(
    task_default_queue="work",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=int(os.environ.get("TEST_PREFETCH", "1")),
    worker_redirect_stdouts=False,
    task_ignore_result=False,
    celery_obs={
        "pause_retry_delay": 0.3,
        "beat_schedule": False,
        "held_back_max_age": float(os.environ.get("TEST_MAX_AGE", "3600")),
        "channels": json.loads(os.environ.get("TEST_CHANNELS", "{}")),
    },
)
celery_obs.setup(app)

_clients: dict[int, Redis] = {}

_CALL = "local t = redis.call('TIME') redis.call('RPUSH', KEYS[1], t[1] * 1000000 + t[2]) return redis.call('EXISTS', KEYS[2])"


def client() -> Redis:
    """
    Return this process's own client.
    """
    return _clients.setdefault(os.getpid(), Redis.from_url(BROKER, decode_responses=True))


def connect() -> None:
    """
    Have a connection to the provider before the limiter is asked, so that calls arrive as they were allowed.
    """
    if os.getpid() not in _clients:
        client().ping()


def provider(name: str = "provider") -> None:
    """
    Receive a call: take it down, and answer it or not.
    """
    if client().eval(_CALL, 2, f"{name}:ledger", f"{name}:down"):
        message = "503 from the provider"
        raise ConnectionError(message)


def note(task: Task, number: int) -> None:
    """
    Leave that a task came to its end, with how often Celery thinks that it was retried.
    """
    client().hset("done", str(number), int(task.request.retries))


def sync(**options: Any) -> Any:
    """
    Declare a sync task of airbnb's.
    """
    return app.task(base=celery_obs.SyncTask, bind=True, channel_type="airbnb", **options)


@sync(**celery_obs.retry_policy("quick"))
def push(self: Task, number: int) -> None:
    """
    Call as most tasks do.
    """
    connect()
    with api_call("airbnb", "/prices", "PUT") as call:
        provider()
        call.response(200)
    note(self, number)


@sync()
def by_hand(self: Task, number: int) -> None:
    """
    Catch the refusal and retry, as one does without our help.
    """
    connect()
    try:
        rate_limiter.acquire("airbnb")
    except LimitReachedError as refused:
        raise self.retry(exc=refused, countdown=refused.retry_after) from refused
    provider()
    note(self, number)


@sync(autoretry_for=(Exception,), max_retries=1, default_retry_delay=0.01)
def by_celery(self: Task, number: int) -> None:
    """
    Leave the retries to Celery.
    """
    connect()
    rate_limiter.acquire("airbnb")
    provider()
    note(self, number)


@sync()
def wrapped(self: Task, number: int) -> None:
    """
    Raise an error of one's own, from the refusal.
    """
    connect()
    try:
        with circuit_breaker.guard("airbnb"):
            rate_limiter.acquire("airbnb")
    except (CircuitOpenError, LimitReachedError) as refused:
        message = "an error of the shop's"
        raise RuntimeError(message) from refused
    provider()
    note(self, number)


@app.task(bind=True, ignore_result=True)
def plain(self: Task, number: int, channel: str) -> None:
    """
    Do nothing.
    """
    note(self, number)


@app.task(base=celery_obs.SyncTask, bind=True, channel_argument="channel", sync_type="call", ignore_result=True)
def call(self: Task, number: int, channel: str) -> None:
    """
    Call a channel that is well.
    """
    with api_call(channel, "/prices", "PUT", connection_id="c-1") as asked:
        asked.response(200)
    note(self, number)
