"""
Celery's own records: nothing of arguments, results and messages comes through, and what is known of the task does.
"""

from __future__ import annotations

import logging

from typing import Any

import pytest

from celery.app import trace
from celery.worker import request
from celery.worker.consumer import consumer

from celery_obs.telemetry.logs import celery_records
from celery_obs.telemetry.logs.context import AttemptContext

from .builders import started


SECRET = "swordfish"
ID = "5c6e2f0a-0d6f-4c39-9f0b-000000000001"
DATA = {
    "id": ID,
    "name": "shop.sell",
    "args": f"('{SECRET}',)",
    "kwargs": f"{{'x': '{SECRET}'}}",
    "return_value": SECRET,
    "traceback": SECRET,
    "runtime": 0.5,
    "description": "raised unexpected",
    "exc": "ValueError('on purpose')",
    "eta": None,
}


def record(logger: str, template: str, *arguments: Any, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord(logger, level, "", 0, template, arguments, None)
    made.__dict__.update(extra)
    return made


@pytest.mark.parametrize(
    ("logger", "template", "text"),
    [
        ("celery.app.trace", trace.LOG_SUCCESS, f"Task shop.sell[{ID}] succeeded in 0.5s"),
        ("celery.app.trace", trace.LOG_FAILURE, f"Task shop.sell[{ID}] raised unexpected: ValueError('on purpose')"),
        ("celery.app.trace", trace.LOG_RETRY, f"Task shop.sell[{ID}] retry: ValueError('on purpose')"),
        ("celery.app.trace", trace.LOG_IGNORED, f"Task shop.sell[{ID}] raised unexpected"),
        ("celery.worker.strategy", trace.LOG_RECEIVED, f"Task shop.sell[{ID}] received"),
        ("celery.app.trace", "%(name)s got %(args)s, a user's own words", "shop.sell got ***, a user's own words"),
        ("celery.app.trace", "%(nothing)s", f"Task shop.sell[{ID}]"),
    ],
)
def test_what_celery_says_of_a_task_keeps_its_identity_only(logger: str, template: str, text: str) -> None:
    """
    Arguments and results are in the text of Celery's records and in their data; name and id are what we want of them.
    """
    told = celery_records.of(record(logger, template, DATA, data=DATA))

    assert told is not None
    assert (text, "shop.sell", ID) == (told.event, told.facts["task"], told.facts["task_id"])
    assert SECRET not in repr(told)


@pytest.mark.parametrize(
    ("template", "arguments", "text"),
    [
        (
            consumer.UNKNOWN_TASK_ERROR,
            (KeyError("shop.x"), SECRET, SECRET, SECRET),
            "Received unregistered task of type 'shop.x'; the message was discarded.",
        ),
        (consumer.UNKNOWN_FORMAT, (SECRET,), "Received and deleted a message that is no task message."),
        (consumer.INVALID_TASK_ERROR, (ValueError(SECRET), SECRET), "Received an invalid task message; it was discarded."),
        (
            consumer.MESSAGE_DECODE_ERROR,
            (ValueError(SECRET), "application/json", "utf-8", SECRET, SECRET),
            "Cannot decode the body of a message; it was discarded.",
        ),
    ],
)
def test_messages_are_not_shown(template: str, arguments: tuple[Any, ...], text: str) -> None:
    """
    Of a message that a worker can do nothing with, Celery shows the whole body; we do not.
    """
    told = celery_records.of(record("celery.worker.consumer.consumer", template, *arguments))

    assert told is not None
    assert (text, False) == (told.event, told.traceback)


def test_the_pools_debug_line_shows_no_arguments() -> None:
    """
    At debug, the pool shows what it applies, arguments and all.
    """
    told = celery_records.of(record("celery.pool", "TaskPool: Apply %s (args:%s kwargs:%s)", max, SECRET, SECRET, level=logging.DEBUG))

    assert ("TaskPool: Apply", {}, True) == told


def test_a_task_that_is_only_in_the_text_is_found() -> None:
    """
    Other records have the task in their words; its id is a fact of the line all the same.
    """
    told = celery_records.of(record(request.__name__, "Hard time limit (%ss) exceeded for %s[%s]", 1, "shop.sell", ID))

    assert (f"Hard time limit (1s) exceeded for shop.sell[{ID}]", {"task": "shop.sell", "task_id": ID}, True) == told


@pytest.mark.parametrize("logger", ["shop", "celery.task", "celery.redirected", "celeryish.x"])
def test_what_is_not_celerys_is_left_as_it_is(logger: str) -> None:
    """
    The program's own words are its own.
    """
    assert celery_records.of(record(logger, "hello %s", "you")) is None


def test_only_what_has_a_line_of_ours_is_left_out() -> None:
    """
    Celery's record about the attempt that runs here is left out; one about another task, or an error of Celery's own, is not.
    """
    tracer = logging.getLogger("celery.app.trace")
    celery_records.leave_out_what_we_write()
    mine, other, internal = (
        record("celery.app.trace", trace.LOG_SUCCESS, DATA, data=DATA, level=logging.ERROR),
        record("celery.app.trace", trace.LOG_SUCCESS, DATA, data={**DATA, "id": "another"}, level=logging.ERROR),
        record("celery.app.trace", trace.LOG_INTERNAL_ERROR, DATA, data=DATA, level=logging.CRITICAL),
    )

    assert [True, True, True] == [bool(tracer.filter(each)) for each in (mine, other, internal)]
    attempt = AttemptContext(started(task_id=ID), correlation="", worker="")
    try:
        assert [False, True, True] == [bool(tracer.filter(each)) for each in (mine, other, internal)]
    finally:
        attempt.leave()
