"""
The canonical line of an attempt: what it says, how loud, and how often.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import types

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from celery_obs.areas.tasks.events import AttemptInterrupted, TaskFinished
from celery_obs.areas.tasks.metrics import HELD_BACK, TaskState
from celery_obs.telemetry.logs.lines import TASK, Line
from celery_obs.telemetry.logs.observer import FIELDS, TaskLogObserver, traceback_of
from celery_obs.telemetry.logs.trace_ids import trace_ids
from celery_obs.telemetry.redaction import Redactor

from .builders import finished, lost, opened, raised, started


ROOT = Path(__file__).parents[4]


class Written(logging.Handler):
    """
    Keeps the facts of the lines that it gets, with their level.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.msg, Line)
        self.lines.append({**json.loads(record.getMessage()), "level": record.levelname})


@pytest.fixture
def written() -> Iterator[Written]:
    """
    What is written in a program that says nothing about logging.
    """
    handler, log = Written(), logging.getLogger(TASK)
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def observer(**sampling: float) -> TaskLogObserver:
    return TaskLogObserver(Redactor(["pin"]), {name.replace("_", "."): rate for name, rate in sampling.items()})


def line_of(written: Written, event: TaskFinished, error: BaseException | None = None, *, expected: bool = False) -> dict[str, Any]:
    """
    Let an attempt end so, and return its line.
    """
    heard = observer()
    heard.opened(opened(event.started))
    if error is not None:
        heard.raised(raised(event.started, error, state="retry" if event.state == "retry" else "failure", expected=expected))
    heard.finished(event)
    (line,) = written.lines
    return line


def test_a_success_says_who_what_and_how_long(written: Written) -> None:
    """
    The canonical line has the identity of the attempt and its durations.
    """
    line = line_of(written, finished(started(), latency=0.2625, entry="every night"))

    assert {
        "level": "INFO",
        "event": "task_finished",
        "task": "shop.sell",
        "queue": "orders",
        "worker": "w1@test",
        "state": "success",
        "task_id": "5c6e2f0a",
        "retries": 0,
        "correlation_id": "req-1",
        "duration_ms": 12.5,
        "queue_wait_ms": 250.0,
        "latency_ms": 262.5,
        "beat_entry": "every night",
    } == line


@pytest.mark.parametrize(
    ("state", "level"),
    [("success", "INFO"), ("failure", "ERROR"), ("retry", "WARNING"), ("ignored", "INFO"), ("rejected", "WARNING")],
)
def test_its_level_says_whether_somebody_has_to_look(written: Written, state: TaskState, level: str) -> None:
    """
    What failed is an error, what is tried again a warning, what went as planned is information.
    """
    assert level == line_of(written, finished(started(), state))["level"]


def test_an_expected_failure_is_no_alarm(written: Written) -> None:
    """
    What a task declares with `throws` is information, without a traceback.
    """
    line = line_of(written, finished(started(), "failure", exception="KeyError"), KeyError("x"), expected=True)

    assert ("INFO", "failure", "KeyError", "'x'", True) == tuple(
        line[name] for name in ("level", "state", "error", "error_message", "expected")
    )
    assert "exception" not in line


def test_a_failure_says_what_was_raised_without_its_secrets(written: Written) -> None:
    """
    Class, message and traceback of the error are there, and its secrets are not.
    """
    try:
        raise ConnectionError("amqp://user:swordfish@host is away, pin=1234")
    except ConnectionError as error:
        line = line_of(written, finished(started(), "failure", exception="ConnectionError", exhausted=True), error)

    assert ("ConnectionError", True, "amqp://user:***@host is away, pin=***") == (line["error"], line["exhausted"], line["error_message"])
    assert line["exception"].startswith("Traceback")
    assert "swordfish" not in json.dumps(line)


def test_a_held_back_task_says_why(written: Written) -> None:
    """
    A task of a paused channel that was put back is no error.
    """
    line = line_of(written, finished(started(), "ignored", exception=HELD_BACK))

    assert ("INFO", "channel_paused") == (line["level"], line["reason"])
    assert "error" not in line


@pytest.mark.parametrize(("state", "level"), [("lost", "ERROR"), ("timeout", "ERROR"), ("terminated", "WARNING")])
def test_a_lost_attempt_has_a_line(written: Written, state: Any, level: str) -> None:
    """
    The main process writes it for the process that cannot.
    """
    observer().lost(lost(state, "killed by password=swordfish"))

    (line,) = written.lines
    assert (level, state, "task_finished", 2, "req-1", "killed by password=***") == tuple(
        line[name] for name in ("level", "state", "event", "retries", "correlation_id", "error_message")
    )


def test_a_message_that_came_before_says_so(written: Written) -> None:
    """
    A redelivered message waited since it was published first, which its line lets one know.
    """
    heard, event = observer(), started()
    heard.opened(opened(event, delivery_info={"redelivered": True}))
    heard.finished(finished(event))

    assert [True] == [line["redelivered"] for line in written.lines]


def test_a_wait_that_is_not_known_is_left_out(written: Written) -> None:
    """
    Without a usable stamp there is no wait, and no guess.
    """
    assert "queue_wait_ms" not in line_of(written, finished(started(wait=None)))


def test_the_line_says_which_span_is_current(written: Written) -> None:
    """
    The span of the attempt is still the current one when its line is written.
    """
    tracer = TracerProvider().get_tracer("shop")
    with tracer.start_as_current_span("process orders") as span:
        line = line_of(written, finished(started()))

    context = span.get_span_context()
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (line["trace_id"], line["span_id"])


def test_without_opentelemetry_nothing_is_loaded_for_it(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A program that has not loaded OpenTelemetry does not get it from us; one whose span cannot be had loses no line.
    """
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert {} == trace_ids()
    assert "opentelemetry.trace" not in sys.modules

    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.SimpleNamespace())
    assert "trace_id" not in line_of(written, finished(started()))


def test_an_interrupted_attempt_leaves_no_line_and_no_context(written: Written) -> None:
    """
    An attempt that is being unwound has no outcome yet; its context is undone.
    """
    heard, event = observer(), started()
    heard.opened(opened(event))

    heard.interrupted(AttemptInterrupted(event))

    assert [] == written.lines
    assert {} == structlog.contextvars.get_contextvars()


def test_what_was_bound_is_in_the_line_without_its_secrets(written: Written) -> None:
    """
    A task's own facts are in its canonical line; it cannot give another meaning to ours.
    """
    heard, event = observer(), started()
    heard.opened(opened(event))
    structlog.contextvars.bind_contextvars(hotel=7, card_pin=1234, state="mine", when=float("inf"), odd={1, "a"})
    heard.finished(finished(event))

    (line,) = written.lines
    assert (7, "***", "success", "inf") == tuple(line[name] for name in ("hotel", "card_pin", "state", "when"))
    assert {} == structlog.contextvars.get_contextvars()


VALUES = st.none() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)


@given(st.dictionaries(st.sampled_from(["a", "b", "token", "state"]), VALUES | st.lists(VALUES, max_size=3), max_size=4))
def test_whatever_a_task_binds_the_line_is_json(bound: dict[str, Any]) -> None:
    """
    No value that a program binds makes the line fail, or anything else than one line of JSON.
    """
    handler, log = Written(), logging.getLogger(TASK)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    heard, event = observer(), started(task_id='5c"6e\n2f')
    try:
        heard.opened(opened(event))
        structlog.contextvars.bind_contextvars(**bound)
        heard.finished(finished(event))
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)

    (line,) = handler.lines
    assert ('5c"6e\n2f', "success") == (line["task_id"], line["state"])


def test_only_success_is_sampled_and_says_so(written: Written) -> None:
    """
    Of a task that runs all the time a part of the good lines is enough; the bad ones are all there.
    """
    heard = observer(shop_sell=0.25)
    for number in range(400):
        event = started(task_id=f"id-{number}")
        heard.opened(opened(event))
        heard.finished(finished(event, "success" if number < 300 else "failure"))

    states = [line["state"] for line in written.lines]
    assert 100 == states.count("failure")
    assert 45 < states.count("success") < 105
    assert {0.25} == {line["sample_rate"] for line in written.lines if line["state"] == "success"}


def test_no_line_is_made_below_the_level(written: Written) -> None:
    """
    With -l WARNING good news costs nothing.
    """
    logging.getLogger(TASK).setLevel(logging.WARNING)
    heard, event = observer(), started()
    heard.opened(opened(event))
    heard.finished(finished(event))

    assert [] == written.lines


def test_attempts_of_one_id_do_not_meet(written: Written) -> None:
    """
    Attempts with the same id overlap; each has its own line.
    """
    heard, first, second = observer(), started(), started(retries=1)
    heard.opened(opened(first))
    heard.opened(opened(second))
    heard.raised(raised(first, KeyError("one"), state="retry"))
    heard.finished(finished(second))
    heard.finished(finished(first, "retry", exception="KeyError"))

    assert [(1, "success", None), (0, "retry", "'one'")] == [
        (line["retries"], line["state"], line.get("error_message")) for line in written.lines
    ]


class Mute(Exception):  # noqa: N818 -- it is one.
    """
    Cannot say what it is.
    """

    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_that_cannot_speak_is_named(written: Written) -> None:
    """
    An error whose text cannot be had is told by its class.
    """
    line = line_of(written, finished(started(), "failure", exception="Mute"), Mute())

    assert "<Mute>" == line["error_message"]
    assert "Mute" in line["exception"]


def test_of_a_long_traceback_both_ends_are_told() -> None:
    """
    Where it began and what was raised stand at its ends.
    """
    told = traceback_of(ValueError("x" * 10**6 + "the end"))

    assert told.startswith("ValueError: ")
    assert told.endswith("the end")
    assert len(told) < 20_000


def test_every_field_is_documented() -> None:
    """
    The reference page lists what a canonical line can say.
    """
    page = (ROOT / "docs/reference/logs.md").read_text()

    named = {name for line in page.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])}

    assert set() == FIELDS - named
