"""
An app that counts our receivers where they are: in the process that runs a task.

``CENSUS_SETUP`` says how it is set up: ``once``, ``twice``, ``imports`` (by configuration alone), ``both``, or ``two apps``.
``CENSUS_CONF`` is a dict of more configuration, ``CENSUS_ENTRIES`` names the schedule's entries.
"""

from __future__ import annotations

import ast
import os

from celery import Celery, current_app, signals
from celery.utils.dispatch import Signal

import celery_obs


HOW = os.environ.get("CENSUS_SETUP", "once")

app = Celery("census", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_LEDGER"])
app.conf.update(
    task_default_queue="work",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    imports=("census", "celery_obs.autoload") if HOW in {"imports", "both"} else ("census",),
)
app.conf.update(ast.literal_eval(os.environ.get("CENSUS_CONF", "{}")))
if "CENSUS_START_METHOD" in os.environ:
    app.conf.worker_pool_start_method = os.environ["CENSUS_START_METHOD"]

other = Celery("other", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_LEDGER"], set_as_current=False)
other.conf.task_default_queue = "work"

if HOW in {"once", "twice", "both", "two apps"}:
    celery_obs.setup(app)
if HOW == "twice":
    celery_obs.setup(app)
if HOW == "two apps":
    celery_obs.setup(other)


def census() -> dict[str, int]:
    """
    Return how many receivers of ours each of Celery's signals has.
    """
    return {name: ours for name, signal in vars(signals).items() if isinstance(signal, Signal) and (ours := _count(signal))}


def _count(signal: Signal) -> int:
    return sum(1 for _, receiver in signal.receivers or () if "celery_obs" in str(getattr(receiver, "__module__", "")))


@app.task(name="census.count")
def count() -> dict[str, object]:
    """
    Tell which receivers this process has, and which process that is.
    """
    current_app.backend.client.hincrby("ran", "count", 1)
    return {"pid": os.getpid(), "receivers": census()}


@other.task(name="other.hello")
def hello() -> None:
    """
    Do nothing, in another app.
    """


@app.task(name="census.pass_on")
def pass_on() -> None:
    """
    Send a task of the other app's.
    """
    hello.delay()


ENTRIES = {
    "count often": {"task": "census.count", "schedule": 0.5},
    "at new year": {"task": "census.count", "schedule": 86400.0 * 300},
}
app.conf.beat_schedule = {
    name: entry for name, entry in ENTRIES.items() if name in os.environ.get("CENSUS_ENTRIES", ",".join(ENTRIES)).split(",")
}
