"""
Tasks for which what is declared is not what holds: retries whose maximum stands elsewhere, and the bases and calls that set it.

The other ways in which a task can end are those of the observed app, which this one has, too.
"""

from __future__ import annotations

import os
import time

from typing import Any

from celery import Task
from celery.exceptions import Ignore, MaxRetriesExceededError
from observed import app, enter  # type: ignore[import-not-found]  # Beside this file, where the worker runs.

import celery_obs


app.conf.broker_transport_options = {"visibility_timeout": int(os.environ.get("TEST_VISIBILITY", "3600"))}
if os.environ.get("TEST_PROTOCOL"):
    app.conf.task_protocol = int(os.environ["TEST_PROTOCOL"])
if os.environ.get("TEST_CANCEL"):
    app.conf.worker_cancel_long_running_tasks_on_connection_loss = True


class ThisError(Exception):
    """
    What is tried again.
    """


class OtherError(Exception):
    """
    What is not.
    """


def often(times: int, name: str) -> None:
    """
    Raise the error that is tried again, up to so many times; then the other.
    """
    raise ThisError if enter(name) <= times else OtherError


# --- refused another retry: exhausted -----------------------------------------------------------------------------------------------


@app.task(name="effective.by_keywords", autoretry_for=(ThisError,), retry_kwargs={"max_retries": 2, "countdown": 0})
def by_keywords() -> None:
    often(99, "by_keywords")


@app.task(name="effective.by_call", bind=True)
def by_call(self: Task) -> None:
    try:
        often(99, "by_call")
    except ThisError as exc:
        raise self.retry(exc=exc, countdown=0, max_retries=2) from exc


@app.task(name="effective.without_reason", bind=True, max_retries=1)
def without_reason(self: Task) -> None:
    enter("without_reason")
    raise self.retry(countdown=0)


@app.task(name="effective.translated", bind=True, max_retries=1)
def translated(self: Task) -> None:
    """
    Say in its own words that retries ran out.
    """
    enter("translated")
    try:
        raise self.retry(countdown=0)
    except MaxRetriesExceededError:
        raise OtherError from None


@app.task(name="effective.overridden", bind=True, autoretry_for=(ThisError,), retry_kwargs={"countdown": 0}, max_retries=9)
def overridden(self: Task) -> None:
    """
    Set for this task, as Celery's own ``retry`` does, another maximum than the declared one.
    """
    self.override_max_retries = 1
    often(99, "overridden")


class PatientTask(Task):  # type: ignore[misc]  # Celery has no types.
    """
    A base of a user's that retries in its own way.
    """

    abstract = True

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        return super().retry(*args, **{**kwargs, "max_retries": 1, "countdown": 0})


@app.task(name="effective.by_base", base=PatientTask, bind=True)
def by_base(self: Task) -> None:
    enter("by_base")
    raise self.retry(exc=ThisError())


@app.task(
    name="effective.of_a_sync", base=celery_obs.SyncTask, bind=True, channel_type="airbnb", sync_type="availability_export", max_retries=1
)
def of_a_sync(self: Task) -> None:
    enter("of_a_sync")
    raise self.retry(exc=ThisError(), countdown=0)


# --- failed for another reason: not exhausted ---------------------------------------------------------------------------------------


@app.task(name="effective.other_error", autoretry_for=(ThisError,), retry_kwargs={"max_retries": 5, "countdown": 0})
def other_error() -> None:
    often(3, "other_error")


@app.task(name="effective.other_error_by_call", bind=True)
def other_error_by_call(self: Task) -> None:
    try:
        often(3, "other_error_by_call")
    except ThisError as exc:
        raise self.retry(exc=exc, countdown=0, max_retries=9) from exc


@app.task(name="effective.without_end", bind=True, max_retries=None)
def without_end(self: Task) -> None:
    try:
        often(5, "without_end")
    except ThisError as exc:
        raise self.retry(exc=exc, countdown=0) from exc


@app.task(name="effective.other_error_last", bind=True, max_retries=1)
def other_error_last(self: Task) -> None:
    try:
        often(1, "other_error_last")
    except ThisError as exc:
        raise self.retry(exc=exc, countdown=0) from exc


@app.task(name="effective.of_another", bind=True, max_retries=9)
def of_another(self: Task) -> None:
    """
    Call a task as a function, and run one eagerly: that these cannot be tried again is no fact of this one.
    """
    enter("of_another")
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    try:
        without_reason.apply(retries=7, throw=True)
    except MaxRetriesExceededError:
        enter("refused_inside")
    by_base()


# --- what else a task may do --------------------------------------------------------------------------------------------------------


@app.task(name="effective.say", bind=True)
def say(self: Task) -> str:
    enter("say")
    return str(self.request.id)


@app.task(name="effective.retry_later", bind=True)
def retry_later(self: Task) -> None:
    enter("retry_later")
    if self.request.retries == 0:
        raise self.retry(countdown=1.5)


@app.task(name="effective.ignore_late", acks_late=True)
def ignore_late() -> None:
    enter("ignore_late")
    raise Ignore


@app.task(name="effective.hold_on", acks_late=True)
def hold_on() -> None:
    """
    Take long, the first time.
    """
    if enter("hold_on") == 1:
        time.sleep(600)
