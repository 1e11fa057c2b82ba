"""
The observer of errors: what is reported of an attempt, and what is said with it.
"""

from __future__ import annotations

import contextvars
import os
import threading

from collections.abc import Mapping
from typing import Any

import pytest
import sentry_sdk

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from celery_obs.areas.channels.syncs.events import SyncStarted
from celery_obs.areas.tasks.events import AttemptInterrupted, AttemptLost, AttemptOpened, AttemptRaised, TaskFinished, TaskStarted
from celery_obs.vocabulary import headers

from .conftest import Make, Reporting


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def started(task_id: str = "id", task: str = "shop.pay") -> TaskStarted:
    return TaskStarted(task, "money", task_id, 0, 1_800_000_000.0, 0.1, False, None)


def finished(opened: TaskStarted, state: Any = "success") -> TaskFinished:
    return TaskFinished(opened, state, 0.1, None, "", False, "")


def lost(state: Any = "lost", **carrier: str) -> AttemptLost:
    return AttemptLost("shop.pay", "money", "id", 1, state, "WorkerLostError", "signal 9", 1_800_000_000.0, {"id": "id", **carrier})


def fail(reporting: Reporting, opened: TaskStarted, error: Exception, *, expected: bool = False, state: Any = "failure") -> None:
    try:
        raise error
    except type(error):
        reporting.observer.raised(AttemptRaised(opened, state, error, expected))


def run(reporting: Reporting, error: Exception, **carrier: str) -> None:
    """
    Go through an attempt that raises *error*.
    """
    opened = started()
    reporting.observer.opened(AttemptOpened(opened, {"id": opened.task_id, **carrier}))
    fail(reporting, opened, error)
    reporting.observer.finished(finished(opened, "failure"))


def sent(reporting: Reporting) -> list[Mapping[str, Any]]:
    sentry_sdk.flush(timeout=5)
    return reporting.endpoint.events()


def test_what_a_body_raised_is_reported_with_its_task(make: Make) -> None:
    """
    The light mode reports what failed, as unhandled, under the task's name.
    """
    reporting = make(sentry_mode="light")

    run(reporting, ValueError("on purpose"), **{headers.CORRELATION: "web-1"})

    (event,) = sent(reporting)
    (error,) = event["exception"]["values"]
    assert ("ValueError", False, "shop.pay") == (error["type"], error["mechanism"]["handled"], event["transaction"])
    assert {"task": "shop.pay", "queue": "money", "task_id": "id", "correlation_id": "web-1"} == event["tags"]


@pytest.mark.parametrize(("expected", "state"), [(True, "failure"), (False, "retry")])
def test_what_was_to_be_expected_is_not_reported(expected: bool, state: str, make: Make) -> None:
    """
    Neither what a task says that it throws, nor what it will try again.
    """
    reporting = make(sentry_mode="light")
    opened = started()
    reporting.observer.opened(AttemptOpened(opened, {}))

    fail(reporting, opened, ValueError("on purpose"), expected=expected, state=state)
    reporting.observer.finished(finished(opened, state))

    assert [] == sent(reporting)


def test_what_was_reported_by_hand_is_not_reported_again(make: Make) -> None:
    """
    A task may report an error itself, and raise it.
    """
    reporting = make(sentry_mode="light")
    opened, error = started(), ValueError("on purpose")
    reporting.observer.opened(AttemptOpened(opened, {}))

    sentry_sdk.capture_exception(error)
    fail(reporting, opened, error)
    reporting.observer.finished(finished(opened, "failure"))

    assert 1 == len(sent(reporting))


def test_attempts_of_one_id_that_overlap_are_told_apart(make: Make) -> None:
    """
    A retry may begin in another thread before the attempt that asked for it has ended.
    """
    reporting = make(sentry_mode="light")
    first, second = started(), started()
    contexts = [contextvars.copy_context(), contextvars.copy_context()]
    for context, opened, who in zip(contexts, (first, second), ("one", "two"), strict=True):
        context.run(reporting.observer.opened, AttemptOpened(opened, {headers.CORRELATION: who}))

    contexts[0].run(fail, reporting, first, ValueError("first"))
    contexts[0].run(reporting.observer.finished, finished(first, "failure"))
    contexts[1].run(fail, reporting, second, ValueError("second"))
    contexts[1].run(reporting.observer.finished, finished(second, "failure"))

    said = {event["exception"]["values"][-1]["value"]: event["tags"]["correlation_id"] for event in sent(reporting)}
    assert {"first": "one", "second": "two"} == said


def test_an_error_in_a_thread_of_a_task_names_the_task(make: Make) -> None:
    """
    Threads that a task starts inherit what it is called.
    """
    reporting = make(sentry_mode="light")
    opened = started("in-a-thread")
    reporting.observer.opened(AttemptOpened(opened, {}))

    thread = threading.Thread(target=sentry_sdk.capture_message, args=("from afar",))
    thread.start()
    thread.join()
    reporting.observer.finished(finished(opened))

    (event,) = sent(reporting)
    assert ("shop.pay", "in-a-thread") == (event["tags"]["task"], event["tags"]["task_id"])


def test_nothing_of_an_attempt_stays_behind(make: Make) -> None:
    """
    After an attempt, be it finished or interrupted, errors of the thread belong to no task, and its tags and breadcrumbs are gone.
    """
    reporting = make(sentry_mode="light")
    for number, ending in enumerate((finished, AttemptInterrupted)):
        opened = started(str(number))
        reporting.observer.opened(AttemptOpened(opened, {}))
        sentry_sdk.set_tag("mark", "set")
        sentry_sdk.add_breadcrumb(message="mark")
        if ending is finished:
            reporting.observer.finished(finished(opened))
        else:
            reporting.observer.interrupted(AttemptInterrupted(opened))

    sentry_sdk.capture_message("between tasks")

    (event,) = sent(reporting)
    assert {"mark", "task", "task_id"}.isdisjoint(event.get("tags") or {})
    assert "mark" not in str(event.get("breadcrumbs"))


def test_a_sync_tells_its_channel_to_what_fails_in_it(make: Make) -> None:
    """
    The channel of a run is a tag.
    """
    reporting = make(sentry_mode="light")
    opened = started()
    reporting.observer.opened(AttemptOpened(opened, {}))
    reporting.observer.channel_named(SyncStarted("airbnb", "prices", "outbound", "c-1", 1_800_000_000.0))

    fail(reporting, opened, ValueError("on purpose"))
    reporting.observer.finished(finished(opened, "failure"))

    (event,) = sent(reporting)
    assert "airbnb" == event["tags"]["channel"]


@pytest.mark.parametrize("state", ["lost", "timeout", "terminated"])
def test_a_lost_attempt_is_reported_unless_it_was_revoked(state: str, make: Make) -> None:
    """
    A terminated task was killed on purpose.
    """
    reporting = make(sentry_mode="light")
    sentry_sdk.add_breadcrumb(message="of the main process")

    reporting.observer.lost(lost(state, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01"))

    expected: list[Any] = [] if state == "terminated" else [("shop.pay", TRACE, [])]
    assert expected == [
        (event["transaction"], event["contexts"]["trace"]["trace_id"], event["breadcrumbs"]["values"]) for event in sent(reporting)
    ]


def test_an_error_carries_the_trace_of_opentelemetry(make: Make) -> None:
    """
    Where OpenTelemetry traces, a report leads to its trace, also where the program has Sentry trace as well.
    """
    reporting = make(sentry_mode="light", traced=True)
    sentry_sdk.get_client().options["traces_sample_rate"] = 1.0

    with trace.use_span(TracerProvider().get_tracer("t").start_span("s")) as span, sentry_sdk.start_transaction(name="theirs"):
        run(reporting, ValueError("on purpose"))
        expected = f"{span.get_span_context().trace_id:032x}"

    (event,) = sent(reporting)
    assert expected == event["contexts"]["trace"]["trace_id"]


def test_where_opentelemetry_traces_sentry_adds_no_headers_of_its_own(make: Make) -> None:
    """
    There is one trace, so there is one set of headers.
    """
    make(traced=True)

    assert [] == list(sentry_sdk.get_isolation_scope().iter_trace_propagation_headers())


def test_ignored_exceptions_are_not_reported_nor_what_derives_from_them(make: Make) -> None:
    """
    By the name of the class or by its path.
    """
    reporting = make(sentry_mode="light", sentry_ignore=["ArithmeticError", "builtins.KeyError", "WorkerLostError"])

    for error in (ZeroDivisionError("no"), KeyError("no"), ValueError("yes")):
        run(reporting, error)
    reporting.observer.lost(lost())

    assert ["yes"] == [event["exception"]["values"][-1]["value"] for event in sent(reporting)]


def test_a_rate_of_nothing_reports_nothing_and_drops_nothing(make: Make) -> None:
    """
    What is left out on purpose is not counted as lost.
    """
    reporting = make(sentry_mode="light", sentry_sample_rate=0.0)

    run(reporting, ValueError("on purpose"))

    assert ([], []) == (sent(reporting), reporting.dropped)


def test_what_cannot_be_scrubbed_is_not_sent_and_counted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Rather no report than one with a secret in it.
    """
    reporting = make(sentry_mode="light")
    monkeypatch.setattr("celery_obs.telemetry.errors.scrub.Scrubber.scrub", lambda *_: 1 / 0)

    run(reporting, ValueError("on purpose"))

    assert ([], [1], ["ZeroDivisionError"]) == (sent(reporting), reporting.dropped, [type(error).__name__ for error in reporting.failed])


def test_a_child_does_not_send_what_its_parent_has_not_sent_yet(make: Make) -> None:
    """
    The queue of the transport is copied with the process, and the locks of its thread are.
    """
    reporting = make(sentry_mode="light")
    reporting.endpoint.delay = 0.5
    for number in range(3):
        sentry_sdk.capture_message(f"of the parent {number}")

    child = os.fork()
    if child == 0:  # pragma: no cover -- in another process.
        reporting.observer.after_fork()
        sentry_sdk.capture_message("of the child")
        reporting.observer.flush(5.0)
        os._exit(0)
    os.waitpid(child, 0)

    reporting.endpoint.delay = 0.0
    messages = sorted(event["message"] if "message" in event else event["logentry"]["message"] for event in sent(reporting))
    assert ["of the child", "of the parent 0", "of the parent 1", "of the parent 2"] == messages
