"""
Translation: what Celery hands over, and what any client may have put into a message.
"""

from __future__ import annotations

import math

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from celery import Celery
from celery.exceptions import MaxRetriesExceededError, Retry
from celery.utils.nodenames import worker_direct
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Exchange, Queue
from kombu.common import Broadcast

from celery_obs.areas.queues.metrics import shared_label
from celery_obs.areas.tasks.events import TaskStarted
from celery_obs.compat.celery import request_facts
from celery_obs.runtime import translate
from celery_obs.runtime.translate import BAD_HEADER, IMPLAUSIBLE_STAMP, Binding, QueueNames
from celery_obs.vocabulary import headers


NOW = 1_800_000_000.0


def begin(facts: dict[str, Any] | None = None, complaints: list[str] | None = None) -> TaskStarted:
    """
    Translate the start of an attempt at `NOW`.
    """
    heard = complaints if complaints is not None else []
    return translate.started(facts or {}, "t", "id", "q", NOW, heard.append)


def at(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, tz=timezone.utc).isoformat()


def compact(seconds: float) -> str:
    """
    Write a time as others than Celery may, with as many digits of its fraction as they like.
    """
    return datetime.fromtimestamp(NOW + seconds, tz=timezone.utc).strftime("%Y%m%dT%H%M%S.0Z")


def test_the_wait_is_start_less_publish() -> None:
    """
    A task that was published 12 seconds ago has waited 12 seconds.
    """
    assert 12.0 == begin({headers.PUBLISHED: NOW - 12}).wait


@pytest.mark.parametrize("eta", [at(-2), at(-2).replace("+00:00", "Z"), at(-2).removesuffix("+00:00"), compact(-2)])
def test_time_before_the_eta_is_no_wait(eta: str) -> None:
    """
    A task that was asked for at a time has waited since then; a time without a zone is UTC.
    """
    assert 2.0 == begin({headers.PUBLISHED: NOW - 60, "eta": eta}).wait


def test_a_negative_wait_is_told_as_clock_skew() -> None:
    """
    A start before its publish says that clocks disagree: the wait is 0, and that is marked.
    """
    event = begin({headers.PUBLISHED: NOW + 5})

    assert (0.0, True) == (event.wait, event.clock_skewed)


def test_without_a_stamp_there_is_no_wait() -> None:
    """
    An absent stamp is not guessed.
    """
    complaints: list[str] = []

    assert (None, None, []) == (begin({}, complaints).wait, begin({}, complaints).due_at, complaints)


@pytest.mark.parametrize("stamp", ["soon", "", math.nan, math.inf, -1, 0, {}, [], True, "1" * 100, 10**400, b"1"])
def test_a_stamp_that_is_no_time_is_counted_and_ignored(stamp: object) -> None:
    """
    Bad header values of foreign publishers cost the wait, not the attempt.
    """
    complaints: list[str] = []

    event = begin({headers.PUBLISHED: stamp}, complaints)

    assert (None, 1) == (event.wait, len(complaints))
    assert complaints[0] in {BAD_HEADER, IMPLAUSIBLE_STAMP}


@pytest.mark.parametrize("stamp", [1.0, NOW + 1e9, 1e300])
def test_a_stamp_of_a_lying_clock_never_reaches_a_sum(stamp: float) -> None:
    """
    A wait of decades, or of a future that far, is counted as implausible and not observed.
    """
    complaints: list[str] = []

    event = begin({headers.PUBLISHED: stamp}, complaints)

    assert (None, True) == (event.wait, IMPLAUSIBLE_STAMP in complaints or BAD_HEADER in complaints)


@given(
    facts=st.dictionaries(
        st.sampled_from([headers.PUBLISHED, headers.DUE, "eta", "retries"]),
        st.none() | st.text() | st.integers() | st.floats() | st.binary() | st.lists(st.integers()),
    )
)
def test_any_header_values_make_a_sound_event(facts: dict[str, Any]) -> None:
    """
    Whatever a message says, retries are a small whole number and waits are bounded.
    """
    event = begin(facts)

    assert 0 <= event.retries < 10**6
    assert event.wait is None or 0 <= event.wait < translate.LONGEST_WAIT
    assert event.due_at is None or abs(NOW - event.due_at) < translate.LONGEST_WAIT


def test_nested_headers_are_found() -> None:
    """
    Stamps that protocol 1 or sentry-sdk put one level down are read there.
    """
    assert 3.0 == begin({"headers": {headers.PUBLISHED: NOW - 3}}).wait


def end(state: str, retval: object = None, retries: int = 0, facts: Mapping[str, Any] | None = None) -> Any:
    """
    Translate the end of an attempt.
    """
    opened = begin({"retries": retries, headers.DUE: NOW - 7})
    return translate.finished(opened, state, retval, 0.5, facts or {}, "")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("SUCCESS", "success"),
        ("FAILURE", "failure"),
        ("RETRY", "retry"),
        ("IGNORED", "ignored"),
        ("REJECTED", "rejected"),
        ("CUSTOM", "failure"),
    ],
)
def test_every_state_of_celery_has_one_of_ours(state: str, expected: str) -> None:
    """
    Celery's states become ours; one that it never had is taken for a failure.
    """
    assert expected == end(state, ValueError()).state


def test_latency_counts_from_the_first_due_time_to_a_final_outcome_only() -> None:
    """
    An attempt that will be repeated has no latency yet.
    """
    assert [7.5, 7.5, None, None] == [end(state, ValueError()).latency for state in ("SUCCESS", "FAILURE", "RETRY", "REJECTED")]


class RetryOf:
    """
    As much of `celery.exceptions.Retry` as is looked at.
    """

    def __init__(self, exc: object) -> None:
        self.exc = exc


@pytest.mark.parametrize(
    ("retval", "name"), [(RetryOf(KeyError("x")), "KeyError"), (RetryOf("KeyError('x')"), "KeyError"), (RetryOf(None), "RetryOf")]
)
def test_a_retry_names_what_made_it(retval: object, name: str) -> None:
    """
    The reason of a retry is the class of the exception behind it.
    """
    assert name == end("RETRY", retval).exception


@pytest.mark.parametrize(
    ("error", "facts", "exhausted"),
    [
        (ValueError(), {}, False),
        (ValueError(), {translate.GAVE_UP: True}, True),
        (MaxRetriesExceededError(), {}, True),  # Of a base of a user's whose retry is all its own.
    ],
)
def test_a_failure_says_whether_another_retry_was_refused(error: Exception, facts: dict[str, Any], exhausted: bool) -> None:
    """
    How often an attempt was tried before says nothing: the maximum that counted may be another than the task's.
    """
    assert exhausted == end("FAILURE", error, retries=3, facts=facts).exhausted


def failing(retries: int, limit: int | None, *, exc: Exception | None, chained: int = 0) -> tuple[BaseException, Mapping[str, Any]]:
    """
    Ask Celery for another retry of an attempt, and return what it raised and the attempt's facts.
    """
    app = Celery("failing", broker="memory://", set_as_current=False)

    @app.task(name="failing.task", max_retries=limit, shared=False)  # type: ignore[untyped-decorator]
    def task() -> None:
        """
        Do nothing.
        """

    task.push_request(retries=retries, id="id", args=(), kwargs={}, called_directly=False, delivery_info={})
    facts = request_facts(task)
    try:
        raise task.retry(exc=exc, countdown=0)
    except (Retry, KeyError, MaxRetriesExceededError) as raised:
        error: BaseException = raised
        for number in range(chained):
            following = RuntimeError(number)
            following.__context__ = error
            error = following
        return error, facts


@pytest.mark.parametrize("exc", [None, KeyError("x")])
@given(retries=st.integers(0, 6), limit=st.none() | st.integers(0, 6), chained=st.integers(0, 3))
@settings(max_examples=40)
def test_what_celery_decided_is_read_off_its_frame(exc: Exception | None, retries: int, limit: int | None, chained: int) -> None:
    """
    For each number of retries and each maximum: refused is what Celery refuses, through errors that were made of it, too.
    """
    error, facts = failing(retries, limit, exc=exc, chained=chained)

    assert (limit is not None and retries + 1 > limit) == translate.gave_up(error, facts)
    assert not translate.gave_up(error, {**facts})


@given(st.text() | st.integers() | st.uuids())
def test_an_id_is_text(task_id: object) -> None:
    """
    A text stays what it is; what is none is written as one.
    """
    assert str(task_id) == translate.identity(task_id)


def names(*bindings: Binding) -> QueueNames:
    return QueueNames(lambda: bindings)


@pytest.mark.parametrize(
    ("exchange", "routing_key", "queue"),
    [
        ("", "orders", "orders"),
        ("", "0." * 27 + "1." + "orders", "orders"),
        ("shop", "order.new", "orders"),
        ("shop", "order.eu.paid", "paid"),
        ("news", "anything", "everybody"),
        ("unknown", "somewhere", "somewhere"),
        (None, "orders", "orders"),
        (None, None, ""),
    ],
)
def test_queues_are_found_by_exchange_and_routing_key(exchange: str | None, routing_key: str | None, queue: str) -> None:
    """
    Default, direct, topic and fanout exchanges are resolved to the queue's name; the digits of delayed delivery are taken off.
    """
    found = names(
        Binding("orders", "shop", "topic", "order.new"),
        Binding("paid", "shop", "topic", "order.#.paid"),
        Binding("everybody", "news", "fanout", ""),
    ).of({"exchange": exchange, "routing_key": routing_key})

    assert queue == found


def test_delivery_info_that_is_none_names_no_queue() -> None:
    """
    Direct calls have no delivery info.
    """
    assert "" == names().of(None)


@given(st.text(), st.text())
def test_any_route_has_a_name(exchange: str, routing_key: str) -> None:
    """
    No exchange and no routing key makes the translation fail.
    """
    assert isinstance(names(Binding("a", exchange, "topic", "#.x.*")).find(exchange, routing_key), str)


def test_the_entry_of_a_nested_header_is_found() -> None:
    """
    Protocol 1 puts headers one level down.
    """
    assert "nightly" == translate.entry_of({"headers": {headers.ENTRY: "nightly"}})


def test_an_entry_name_is_taken_only_as_short_text() -> None:
    """
    A schedule entry in a foreign message is text of a sane length, or nothing.
    """
    read = [translate.entry_of({headers.ENTRY: value}) for value in ("nightly", "x" * 501, 7, None)]

    assert ["nightly", "", "", ""] == read


def test_an_eta_far_away_does_no_harm() -> None:
    """
    Times that no clock can show are bad headers.
    """
    complaints: list[str] = []

    assert translate.due_time(datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))), complaints.append) is None or complaints == []


def test_queues_with_random_names_are_called_as_their_exchange() -> None:
    """
    A broadcast queue's name is another one in each process; what all of them have in common is the exchange.
    """
    found = names(
        Binding("bcast.1", "news", "fanout", "", "news"),
        Binding("bcast.2", "news", "fanout", "", "news"),
        Binding("mine-7", "replies", "direct", "mine-7", "replies"),
    )

    assert ["news", "replies", "replies"] == [found.find("news", ""), found.find("replies", "mine-7"), found.find("", "mine-7")]


@pytest.mark.parametrize(
    ("queue", "label"),
    [
        (Queue("orders", Exchange("orders")), ""),
        (Queue("orders", Exchange("shop")), ""),
        (Broadcast("news"), "news"),
        (Queue("x1", Exchange("replies"), auto_delete=True), "replies"),
        (Queue("x1", Exchange("replies"), exclusive=True), "replies"),
        (Queue("x1", auto_delete=True), ""),
        (worker_direct("w1@host"), "C.dq2"),
    ],
)
def test_which_queues_share_a_label_value(queue: Any, label: str) -> None:
    """
    Those that live no longer than their consumer, and that an exchange has a name for.
    """
    assert label == shared_label(queue)
