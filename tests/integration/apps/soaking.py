"""
An app whose syncs write to a channel with tokens that run out, and keep a ledger of every attempt.

The ledger lies on the broker: ``inside`` holds which process is in the body of which sync, ``entered`` and ``done`` count by sync, ``left`` by the way in
which an attempt came to an end; ``story:N`` is all that happened to one sync.
"""

from __future__ import annotations

import contextlib
import os
import time

from collections.abc import Iterator

import httpx

from celery import Celery, Task
from redis import Redis

import celery_obs

from celery_obs.areas.channels.api_calls.api import HttpxTransport
from celery_obs.areas.channels.errors import HeldBackError, NetworkError


BROKER = os.environ["TEST_BROKER"]
URL = os.environ.get("TEST_PROVIDER", "")

app = Celery("soaking", broker=BROKER)
app.conf.update(
    task_default_queue="work",
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 36_000},
    worker_redirect_stdouts=False,
)
celery_obs.setup(app)

_clients: dict[int, Redis] = {}


def ledger() -> Redis:
    """
    Return this process's own client.
    """
    return _clients.setdefault(os.getpid(), Redis.from_url(BROKER, decode_responses=True))


@contextlib.contextmanager
def taken_down(task: Task, number: int) -> Iterator[None]:
    """
    Take down that the body of sync *number* was entered, and how it was left.
    """
    redis, way = ledger(), "success"
    redelivered = (task.request.delivery_info or {}).get("redelivered")
    attempt = f"{os.getpid()} {task.request.id} retries={task.request.retries} redelivered={redelivered}"
    with redis.pipeline() as entering:
        entering.hset("inside", str(os.getpid()), str(number))
        entering.hincrby("entered", str(number), 1)
        entering.rpush(f"story:{number}", f"{time.time():.3f} {attempt} began")
        entering.execute()
    try:
        yield
    except HeldBackError:
        way = "held_back"
        raise
    except NetworkError:
        way = "retry"
        raise
    except Exception as error:
        way = type(error).__name__
        redis.hset("why", way, str(error)[:500])
        raise
    finally:
        with redis.pipeline() as leaving:
            leaving.hdel("inside", str(os.getpid()))
            leaving.hincrby("left", way, 1)
            leaving.rpush(f"story:{number}", f"{time.time():.3f} {attempt} {way}")
            if way == "success":
                leaving.hincrby("done", str(number), 1)
            leaving.execute()


@app.task(
    base=celery_obs.SyncTask,
    bind=True,
    channel_type="airbnb",
    connection_argument="connection_id",
    **celery_obs.retry_policy(max_retries=None, base_delay=0.2, max_delay=2),
)
def push(self: Task, connection_id: str, number: int) -> object:
    """
    Write one day of a calendar.
    """
    with taken_down(self, number):
        try:
            token = celery_obs.tokens.get(connection_id, fresh_for=5)
            assert token is not None, "The token is gone."
            with httpx.Client(transport=HttpxTransport("airbnb"), timeout=3, trust_env=False) as client:
                answer = client.put(
                    f"{URL}/airbnb/listings/{connection_id}/calendar",
                    json={"days": [{"date": f"2030-01-{number % 28 + 1:02}", "available": number % 4}]},
                    headers={"Authorization": f"Bearer {token.access_token}"},
                )
                answer.raise_for_status()
        except HeldBackError:
            raise
        except Exception as error:
            # Whatever it was, it comes again: a consent has ended the token, the channel is down, or the state's Redis is changing masters.
            message = f"{type(error).__name__}: {error}"
            ledger().hincrby("reasons", message[:200], 1)
            raise NetworkError(message) from error
    return celery_obs.SyncResult(updated=1)
