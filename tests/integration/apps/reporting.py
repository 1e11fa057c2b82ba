"""
The observed app, and tasks that fail with secrets all around them, for the tests of error reports.

With ``TEST_OWN_SENTRY`` the program makes its own client, as many do: when it is imported, or when the worker starts.
``TEST_SETTINGS`` is our dict in the configuration, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import threading

from datetime import datetime, timezone

from celery import Task, signals
from observed import app, enter  # type: ignore[import-not-found]  # Beside this file, where the worker runs.

import celery_obs


CANARY = os.environ.get("TEST_CANARY", "canary")
log = logging.getLogger("shop")

app.conf.celery_obs = json.loads(os.environ.get("TEST_SETTINGS", "{}"))


def init_their_own(**_: object) -> None:
    import sentry_sdk

    sentry_sdk.init(
        dsn=os.environ["TEST_DSN"],
        environment="their-own",
        before_send=lambda event, _: {**event, "extra": {**event.get("extra", {}), "theirs": f"Bearer {CANARY}-theirs"}},
    )


if os.environ.get("TEST_OWN_SENTRY") == "early":
    init_their_own()
elif os.environ.get("TEST_OWN_SENTRY") == "late":
    signals.celeryd_init.connect(init_their_own)


class Vault:
    """
    Something whose representation tells too much.
    """

    def __repr__(self) -> str:
        return f"Vault(password='{CANARY}-repr')"


@app.task
def leak(order: str, password: str) -> None:
    """
    Fail among secrets: in local variables at any depth, in a log line, in a header, in a URL, in the message of the exception.
    """
    enter("leak")
    import sentry_sdk

    headers = {
        "Authorization": f"Bearer {CANARY}-bearer",
        "Cookie": f"id={CANARY}-cookie",
        "X-Api-Key": f"{CANARY}-key",
        "Accept": "text/html",
    }
    nested = {"level": [{"level": {"client_secret": f"{CANARY}-nested"}}]}
    vault = Vault()
    url = f"https://shop:{CANARY}-url@example.com/orders?access_token={CANARY}-query"
    sentry_sdk.set_context("request of ours", {"headers": headers, "url": url})
    sentry_sdk.set_extra("session", nested)
    log.warning("calling %s", url, extra={"api_key": f"{CANARY}-extra"})
    sentry_sdk.add_breadcrumb(category="http", message=f"GET {url}", data={"headers": headers})
    raise ConnectionError(f"{password} was refused by {url} for {order} {len(nested)} {vault is None}")


@app.task
def fail_in_a_thread() -> None:
    """
    Log an error in a thread of the task's own.
    """
    enter("fail_in_a_thread")
    thread = threading.Thread(target=lambda: log.error("in a thread"))
    thread.start()
    thread.join()


@app.task
def log_an_error() -> None:
    enter("log_an_error")
    log.error("said by a task")


@app.task
def mark(name: str) -> None:
    """
    Leave something in Sentry's scope, and fail.
    """
    enter("mark")
    import sentry_sdk

    sentry_sdk.set_tag(f"mark_{name}", "set")
    sentry_sdk.add_breadcrumb(category="mark", message=name)
    raise RuntimeError(name)


class UnpicklableError(Exception):
    """
    Cannot be pickled: Celery makes another one of it.
    """

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} {two}")
        self.lock = threading.Lock()


@app.task
def raise_the_unpicklable() -> None:
    enter("raise_the_unpicklable")
    raise UnpicklableError(1, 2)


@app.task(bind=True)
def raise_again(self: Task) -> None:
    """
    Report an error by hand, and raise it.
    """
    enter("raise_again")
    import sentry_sdk

    try:
        raise KeyError("by hand")
    except KeyError as error:
        sentry_sdk.capture_exception(error)
        raise


@app.task(base=celery_obs.SyncTask, channel_type="airbnb", sync_type="prices", bind=True)
def sync_in_vain(self: Task) -> None:
    enter("sync_in_vain")
    raise TimeoutError("no answer")


@app.task
def answer() -> int:
    enter("answer")
    return 42


LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
app.conf.beat_schedule = {
    name: {"task": task, "schedule": 600.0, "last_run_at": LONG_AGO}
    for name, task in {
        "Goes well": "reporting.answer",
        "fails": "observed.fail",
        "retries": "observed.retry_once",
        "is killed": "observed.kill_own_process",
    }.items()
}
# What a process that is killed has not sent yet goes with it, and that may be what an entry before it reports.
app.conf.beat_schedule["is killed"]["options"] = {"countdown": 5}
app.conf.beat_schedule["too often"] = {"task": "reporting.answer", "schedule": 7.0, "last_run_at": LONG_AGO}
