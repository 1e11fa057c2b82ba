"""
The app under test: a task for every way in which an attempt can end, each keeping a ledger of its own in Redis.

The ledger is what the tests believe: ``ran`` counts the bodies that were entered, by task.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from redis import Redis

import celery_obs


BROKER = os.environ["TEST_BROKER"]
LEDGER = os.environ["TEST_LEDGER"]

app = Celery("observed", broker=BROKER, backend=os.environ.get("TEST_BACKEND", LEDGER))
app.conf.update(
    task_default_queue="work",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": 3600},
    worker_redirect_stdouts=False,
)
if os.environ.get("TEST_UNOBSERVED") != "1":
    celery_obs.setup(app)

ORDERS = celery_obs.metrics.counter("orders_total", "Who sells? Orders, by shop.", labels=["shop"])
_clients: dict[int, Redis] = {}


def ledger() -> Redis:
    """
    Return this process's connection to the ledger.
    """
    client = _clients.get(os.getpid())
    if client is None:
        client = _clients[os.getpid()] = Redis.from_url(LEDGER, decode_responses=True)
    return client


def enter(task: str) -> int:
    """
    Take down that the body of *task* was entered; return how often that makes.
    """
    return int(ledger().hincrby("ran", task, 1))


@app.task
def succeed(seconds: float = 0.0) -> str:
    enter("succeed")
    time.sleep(seconds)
    return "done"


@app.task
def fail() -> None:
    enter("fail")
    raise ValueError("on purpose")


@app.task(throws=(LookupError,))
def fail_expectedly() -> None:
    enter("fail_expectedly")
    raise LookupError("on purpose")


@app.task(bind=True, max_retries=5)
def retry_once(self: Task) -> None:
    if enter("retry_once") % 2:
        raise self.retry(exc=KeyError("again"), countdown=0)


@app.task(bind=True, max_retries=2)
def retry_in_vain(self: Task) -> None:
    enter("retry_in_vain")
    raise self.retry(exc=KeyError("again"), countdown=0)


@app.task
def ignore() -> None:
    enter("ignore")
    raise Ignore


@app.task
def reject() -> None:
    enter("reject")
    raise Reject("on purpose", requeue=False)


@app.task(acks_late=True)
def reject_and_requeue() -> None:
    if enter("reject_and_requeue") % 2:
        raise Reject("on purpose", requeue=True)


@app.task(bind=True)
def replace_itself(self: Task) -> None:
    enter("replace_itself")
    raise self.replace(succeed_after_replacement.s())


@app.task
def succeed_after_replacement() -> None:
    enter("succeed_after_replacement")


@app.task
def return_the_unserialisable() -> object:
    enter("return_the_unserialisable")
    return object()


@app.task
def wait_for_ever() -> None:
    enter("wait_for_ever")
    time.sleep(600)


@app.task
def sleep_early() -> None:
    if enter("sleep_early") == 1:
        time.sleep(600)


@app.task(acks_late=True)
def sleep_late() -> None:
    if enter("sleep_late") == 1:
        time.sleep(600)


@app.task
def never_due() -> None:
    enter("never_due")


@app.task
def expire() -> None:
    enter("expire")


@app.task(soft_time_limit=1, time_limit=60)
def exceed_soft_limit() -> None:
    enter("exceed_soft_limit")
    time.sleep(600)


@app.task(time_limit=1)
def exceed_hard_limit() -> None:
    enter("exceed_hard_limit")
    time.sleep(600)


@app.task
def leave() -> None:
    enter("leave")
    sys.exit(3)


@app.task
def kill_own_process() -> None:
    enter("kill_own_process")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, reject_on_worker_lost=True)
def kill_then_redeliver() -> None:
    if enter("kill_then_redeliver") % 2:
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, retry_on_worker_lost=True, max_retries=3, default_retry_delay=0)
def kill_then_retry() -> None:
    if enter("kill_then_retry") % 2:
        os.kill(os.getpid(), signal.SIGKILL)


@app.task
def run_another_eagerly() -> None:
    enter("run_another_eagerly")
    run_by_another.apply()


@app.task
def run_by_another() -> None:
    enter("run_by_another")


@app.task
def sell(shop: str, times: int) -> None:
    for _ in range(times):
        ORDERS.inc(shop=shop)


@app.task
def sell_widely(shops: int) -> None:
    """
    Sell in so many shops that their series need room of their own.
    """
    for number in range(shops):
        ORDERS.inc(shop=f"shop {number} {'x' * 60}")


@app.task(bind=True, acks_late=False, max_retries=3)
def mixed(self: Task, kind: str) -> None:
    """
    End in the way that *kind* says, telling the ledger before and after the body where this process is.
    """
    pid, redis = os.getpid(), ledger()
    with redis.pipeline() as pipe:
        pipe.hset("inside", str(pid), kind)
        pipe.hincrby("mixed:ran", kind, 1)
        pipe.rpush("mixed:began", f"{self.request.id} {self.request.retries}")
        pipe.execute()
    if kind == "slow":
        time.sleep(0.02)
    outcome = {"fail": "failure", "retry": "retry" if self.request.retries == 0 else "success", "ignore": "ignored"}.get(kind, "success")
    with redis.pipeline() as pipe:
        pipe.hdel("inside", str(pid))
        pipe.hincrby("mixed:ended", outcome, 1)
        pipe.rpush("mixed:outcomes", f"{self.request.id} {self.request.retries} {outcome}")
        pipe.execute()
    if kind == "fail":
        raise ValueError("on purpose")
    if outcome == "retry":
        raise self.retry(exc=KeyError("again"), countdown=0)
    if kind == "ignore":
        raise Ignore


app.conf.beat_schedule = {
    "every second": {"task": "observed.succeed", "schedule": 1.0},
    "at new year": {"task": "observed.succeed", "schedule": 86400.0 * 300},
}
