"""
An app of sync tasks, one for every way in which a sync can end; the ledger is that of the observed app.
"""

from __future__ import annotations

import json
import os
import signal
import time

from typing import Any

from celery import Celery, Task, chain, chord
from celery.exceptions import Ignore
from redis import Redis

import celery_obs

from celery_obs.areas.channels.errors import AuthError, NetworkError


BROKER = os.environ["TEST_BROKER"]

app = Celery("syncing", broker=BROKER, backend=BROKER)
app.conf.update(
    task_default_queue="work",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": 3600},
    worker_redirect_stdouts=False,
    celery_obs={"pause_retry_delay": 0.3, "beat_schedule": False},
)
celery_obs.setup(app)

_clients: dict[int, Redis] = {}


def enter(task: str) -> int:
    """
    Take down that the body of *task* was entered; return how often that makes.
    """
    client = _clients.setdefault(os.getpid(), Redis.from_url(BROKER, decode_responses=True))
    return int(client.hincrby("ran", task, 1))


def leave(task: str, value: object) -> None:
    """
    Leave what *task* came to for the test to find.
    """
    _clients[os.getpid()].hset("values", task, json.dumps(value))


def sync(**options: Any) -> Any:
    """
    Declare a sync task of airbnb's whose argument is the connection.
    """
    return app.task(base=celery_obs.SyncTask, channel_type="airbnb", connection_argument="connection_id", **options)


@sync()
def succeed(connection_id: str) -> object:
    enter("succeed")
    return celery_obs.SyncResult(created=1, updated=2)


@sync()
def part(connection_id: str) -> object:
    enter("part")
    return celery_obs.SyncResult(updated=28, failed=2)


@sync()
def fail(connection_id: str) -> None:
    enter("fail")
    raise ValueError("on purpose")


@sync()
def skip(connection_id: str) -> None:
    enter("skip")
    raise Ignore


@sync(**celery_obs.retry_policy(max_retries=2, base_delay=0.01))
def retry_once(connection_id: str) -> None:
    if enter("retry_once") % 2:
        raise NetworkError("on purpose")


@sync(**celery_obs.retry_policy(max_retries=2, base_delay=0.01))
def refused(connection_id: str) -> None:
    enter("refused")
    raise AuthError("on purpose")


@sync()
def kill(connection_id: str) -> None:
    enter("kill")
    os.kill(os.getpid(), signal.SIGKILL)


@sync(time_limit=1)
def hang(connection_id: str) -> None:
    enter("hang")
    time.sleep(600)


@sync()
def wait_for_ever(connection_id: str) -> None:
    enter("wait_for_ever")
    time.sleep(600)


@app.task
def block(connection_id: str) -> None:
    enter("block")
    with celery_obs.sync_run("booking", "inside", connection_id=connection_id):
        if connection_id == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=celery_obs.SyncTask, bind=True, channel_argument="channel", sync_type="dynamic", direction="inbound", max_retries=3)
def pull(self: Task, channel: str, times: int = 1) -> None:
    """
    Leave what the request says, once it was retried *times* times.
    """
    enter("pull")
    if self.request.retries < times:
        raise self.retry(exc=KeyError("again"), countdown=0)
    info = self.request.delivery_info
    leave(
        f"pull {channel}",
        {"id": self.request.id, "retries": self.request.retries, "priority": info.get("priority"), "queue": info.get("routing_key")},
    )


@app.task
def after(result: object) -> None:
    enter("after")
    leave("after", result)


@app.task
def total(results: list[object]) -> None:
    enter("total")
    leave("total", len(results))


@app.task
def compose() -> None:
    """
    Send a chain and a chord of sync tasks.
    """
    chain(succeed.si("c-1").set(priority=3), after.s()).apply_async()
    chord([succeed.si(f"c-{number}") for number in range(2)], total.s()).apply_async()
