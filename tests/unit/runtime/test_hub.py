"""
The hub: every observer hears, and none suffers from another.
"""

from __future__ import annotations

import logging

from typing import NamedTuple

import pytest

from celery_obs.runtime.hub import ErrorReporter, Hub, guarded


class Rang(NamedTuple):
    """
    The bell rang.
    """

    times: int


class Stopped(NamedTuple):
    """
    The bell stopped.
    """

    times: int


def broken(event: object) -> None:
    message = "oops"
    raise RuntimeError(message)


class Failures:
    """
    What was told of errors.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, error: Exception, *, component: str) -> None:
        self.seen.append((str(error), component))


def test_a_broken_observer_does_not_silence_the_others() -> None:
    """
    Every observer hears about an event, even if one before it raises.
    """
    heard: list[object] = []
    failures = Failures()
    hub = Hub(on_error=failures)
    hub.subscribe(Rang, broken)
    hub.subscribe(Rang, heard.append)

    hub.emit(Rang(1))
    hub.emit(Rang(2))

    assert [Rang(1), Rang(2)] == heard
    assert [("oops", broken.__module__)] * 2 == failures.seen


def test_events_go_to_observers_of_their_own_type() -> None:
    """
    Two events of equal content are still two kinds of event.
    """
    heard: list[object] = []
    hub = Hub(on_error=Failures())
    hub.subscribe(Stopped, heard.append)

    hub.emit(Rang(1))

    assert ([], False, True) == (heard, hub.wants(Rang), hub.wants(Stopped))


def test_errors_are_counted_every_time_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """
    An observer that fails on every task does not flood the log.
    """
    counted: list[str] = []
    errors = ErrorReporter(counted.append)

    with caplog.at_level(logging.ERROR, "celery_obs"):
        for _ in range(5):
            errors(ValueError("x"), component="logs")
        errors(KeyError("x"), component="logs")

    assert (["logs"] * 6, 2) == (counted, len(caplog.records))


def test_what_fails_for_long_is_one_traceback_and_then_a_line_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """
    A server that is away for an hour does not fill the log.
    """
    errors = ErrorReporter(pause=0.0)

    with caplog.at_level(logging.ERROR, "celery_obs"):
        for _ in range(3):
            errors(ConnectionError("redis://:secret@host is away"), component="worker.announce")

    assert [True, False, False] == [record.exc_info is not None for record in caplog.records]
    assert all("ConnectionError: redis://:***@host is away" in record.getMessage() for record in caplog.records)


def test_what_is_guarded_raises_nothing_and_is_told() -> None:
    """
    An error of ours ends with the block, and one of the interpreter's own, such as an exit, goes on.
    """
    failures = Failures()

    with guarded(failures, "worker.tick"):
        raise ValueError("oops")
    with pytest.raises(SystemExit), guarded(failures, "worker.tick"):
        raise SystemExit

    assert [("oops", "worker.tick")] == failures.seen


def test_nothing_that_goes_wrong_while_telling_gets_out() -> None:
    """
    A counter that fails, too, is the end of the story, not of the task.
    """
    errors = ErrorReporter(broken)

    errors(ValueError("x"), component="logs")

    assert callable(errors)
