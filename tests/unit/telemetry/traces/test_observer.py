"""
From events to spans: what each becomes, and that contexts are left as they were found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, StaticSampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from celery_obs.areas.channels.api_calls.events import ApiCallFinished
from celery_obs.areas.channels.syncs.events import SyncFinished, SyncStarted
from celery_obs.areas.tasks.events import AttemptInterrupted, AttemptLost, AttemptOpened, AttemptRaised, PublishEnded, PublishStarted
from celery_obs.telemetry.traces.propagation import PREVIOUS
from tests.unit.telemetry.traces.builders import SENT, SPAN, TRACE, UNSAMPLED, Memory, attributes_of, finished, observer, started, tell


@pytest.fixture(autouse=True)
def _no_context_is_left() -> Iterator[None]:
    """
    See that whatever a test does, the context afterwards is the one before.
    """
    before = contexts.get_current()
    yield
    assert before == contexts.get_current()


def lost(**changes: Any) -> AttemptLost:
    usual: dict[str, Any] = {
        "task": "shop.sell",
        "queue": "work",
        "task_id": "id-1",
        "retries": 0,
        "state": "timeout",
        "exception": "TimeLimitExceeded",
        "message": "It ran for more than its hard time limit, (1.0,).",
        "started_at": 1000.0,
        "carrier": {"traceparent": SENT},
    }
    return AttemptLost(**{**usual, **changes})


@pytest.mark.parametrize("light", [True, False], ids=["our provider", "the user's provider"])
def test_an_attempt_is_a_consumer_span_below_its_message(light: bool) -> None:
    """
    The span has the conventions' attributes, follows the publish, and says when its task was due.
    """
    traces, memory = observer(Memory(light=light))
    event = started(wait=2.0)

    traces.attempt_opened(AttemptOpened(event, {"traceparent": SENT, "root_id": "root-1", "hostname": "w1@test"}))
    traces.task_finished(finished(event))

    span = memory.one()
    assert ("process shop.sell", SpanKind.CONSUMER, 1_000_000_000_000, 1_000_500_000_000) == (
        span.name,
        span.kind,
        span.start_time,
        span.end_time,
    )
    assert span.context is not None
    assert span.parent is not None
    assert (int(TRACE, 16), int(SPAN, 16)) == (span.context.trace_id, span.parent.span_id)
    assert [("celery.task.due", 998_000_000_000)] == [(each.name, each.timestamp) for each in span.events]
    assert {
        "messaging.system": "redis",
        "server.address": "localhost",
        "server.port": 6379,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "work",
        "messaging.message.id": "id-1",
        "messaging.message.conversation_id": "root-1",
        "celery.task.name": "shop.sell",
        "celery.task.retries": 0,
        "celery.task.queue_wait": 2.0,
        "celery.worker": "w1@test",
        "celery.task.state": "success",
    } == attributes_of(span)


@pytest.mark.parametrize("light", [True, False], ids=["our provider", "the user's provider"])
def test_what_the_body_raised_is_told_without_secrets(light: bool) -> None:
    """
    A failure has an error status, its type, and an exception event, all without the password in its text.
    """
    traces, memory = observer(Memory(light=light))
    event = started()

    traces.attempt_opened(AttemptOpened(event, {}))
    traces.attempt_raised(AttemptRaised(event, "failure", ValueError("no hunter2"), expected=False))
    traces.task_finished(finished(event, state="failure", exception="ValueError"))

    span = memory.one()
    assert (StatusCode.ERROR, "ValueError: no ***") == (span.status.status_code, span.status.description)
    assert ("ValueError", "failure") == (attributes_of(span)["error.type"], attributes_of(span)["celery.task.state"])
    assert "hunter2" not in span.to_json()


def test_an_expected_failure_and_a_retry_are_no_errors() -> None:
    """
    What a task says it throws, and what it retries for, stand on the span and leave its status alone.
    """
    traces, memory = observer()
    failing, retrying = started(), started(retries=1)

    for event, state in ((failing, "failure"), (retrying, "retry")):
        traces.attempt_opened(AttemptOpened(event, {}))
        traces.attempt_raised(AttemptRaised(event, state, KeyError("x"), expected=True))  # type: ignore[arg-type]  # One of the two words.
        traces.task_finished(finished(event, state=state))

    assert [StatusCode.UNSET] * 2 == [span.status.status_code for span in memory.spans()]
    assert "KeyError" == attributes_of(memory.spans()[1])["celery.task.retry_reason"]


@pytest.mark.parametrize(
    ("sampler", "carrier"),
    [
        (ParentBased(ALWAYS_ON), {"traceparent": UNSAMPLED}),
        (ParentBased(ALWAYS_OFF), {}),
        (ParentBased(TraceIdRatioBased(0.0)), {}),
        (ALWAYS_OFF, {"traceparent": SENT}),
    ],
)
@pytest.mark.parametrize("light", [True, False], ids=["our provider", "the user's provider"])
def test_what_is_sampled_out_makes_no_span_and_tells_others(sampler: Any, carrier: dict[str, Any], light: bool) -> None:
    """
    Nothing is recorded, and a message that the attempt sends says that it is not recorded.
    """
    traces, memory = observer(Memory(sampler=sampler, light=light))
    event, headers = started(), {"id": "id-2"}

    traces.attempt_opened(AttemptOpened(event, carrier))
    traces.publish_started(PublishStarted("shop.more", "work", headers, headers, is_followed=True))
    exemplar = traces.exemplar()
    traces.publish_ended(PublishEnded(headers, None))
    traces.task_finished(finished(event))

    assert ([], 0, 0) == (memory.spans(), exemplar, int(headers["traceparent"][-2:], 16) & 1)


def test_a_sampler_that_wants_attributes_gets_them() -> None:
    """
    A sampler of the user's own is asked as OpenTelemetry says, with what the span will say.
    """
    asked: list[Any] = []

    class Curious(StaticSampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> Any:
            asked.append(args[4])
            return super().should_sample(*args, **kwargs)

        def get_description(self) -> str:
            return "Curious"

    traces, memory = observer(Memory(sampler=Curious(ALWAYS_ON.should_sample(None, 1, "").decision)))
    event = started()

    traces.attempt_opened(AttemptOpened(event, {"traceparent": UNSAMPLED}))
    traces.task_finished(finished(event))

    assert ["shop.sell"] == [attributes["celery.task.name"] for attributes in asked]
    assert ["process shop.sell"] == [span.name for span in memory.spans()]


def test_the_attempt_is_the_current_span_while_it_runs() -> None:
    """
    Code in the task sees its span as the current one, and the exemplar is its trace.
    """
    traces, _ = observer()
    event = started()

    traces.attempt_opened(AttemptOpened(event, {"traceparent": SENT}))
    inside = (trace.get_current_span().get_span_context().trace_id, traces.exemplar())
    traces.task_finished(finished(event))

    assert (int(TRACE, 16), int(TRACE, 16)) == inside
    assert 0 == traces.exemplar()


def test_overlapping_attempts_of_one_task_id_have_spans_of_their_own() -> None:
    """
    State lies under the event, not the id, so that neither ends the other's span.
    """
    traces, memory = observer()
    first, second = started(), started()
    ambient = contexts.get_current()

    traces.attempt_opened(AttemptOpened(first, {}))
    elsewhere = contexts.attach(ambient)  # As another thread or greenlet would begin.
    traces.attempt_opened(AttemptOpened(second, {}))
    traces.task_finished(finished(second, state="failure"))
    contexts.detach(elsewhere)
    traces.task_finished(finished(first))

    assert ["failure", "success"] == [attributes_of(span)["celery.task.state"] for span in memory.spans()]


def test_an_interrupted_attempt_leaves_its_context_and_no_span() -> None:
    """
    An attempt that is being unwound has no outcome to tell; only its context is undone.
    """
    traces, memory = observer()
    event = started()

    traces.attempt_opened(AttemptOpened(event, {}))
    traces.attempt_interrupted(AttemptInterrupted(event))
    traces.task_finished(finished(event))  # Never comes; if it did, it would find nothing.

    assert [] == memory.spans()


@pytest.mark.parametrize("light", [True, False], ids=["our provider", "the user's provider"])
def test_a_lost_attempt_is_a_span_with_an_error(light: bool) -> None:
    """
    The main process makes it, in the trace of the message, from when the attempt began.
    """
    traces, memory = observer(Memory(light=light))

    traces.attempt_lost(lost())

    span = memory.one()
    assert span.context is not None
    assert (int(TRACE, 16), 1_000_000_000_000) == (span.context.trace_id, span.start_time)
    assert (StatusCode.ERROR, "timeout") == (span.status.status_code, attributes_of(span)["celery.task.state"])
    assert ("shop.sell", "id-1", "TimeLimitExceeded") == (
        attributes_of(span)["celery.task.name"],
        attributes_of(span)["messaging.message.id"],
        attributes_of(span)["error.type"],
    )


def test_a_message_is_a_producer_span_that_it_carries() -> None:
    """
    The message names the span of its publish as its parent.
    """
    traces, memory = observer()
    headers: dict[str, Any] = {"id": "id-1", "root_id": "root-1", "retries": 0, "eta": None, "celery_obs_entry": "nightly"}

    traces.publish_started(PublishStarted("shop.sell", "work", headers, headers, is_followed=True))
    traces.publish_ended(PublishEnded(headers, None))

    span = memory.one()
    assert span.context is not None
    assert f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01" == headers["traceparent"]
    assert ("send shop.sell", SpanKind.PRODUCER, None) == (span.name, span.kind, span.parent)
    assert ("send", "id-1", "nightly") == (
        attributes_of(span)["messaging.operation.type"],
        attributes_of(span)["messaging.message.id"],
        attributes_of(span)["celery.beat.entry"],
    )


def test_a_failed_publish_ends_its_span() -> None:
    """
    It has an error status, and nothing stays open or current.
    """
    traces, memory = observer()
    headers: dict[str, Any] = {"id": "id-1"}

    traces.publish_started(PublishStarted("shop.sell", "work", headers, headers, is_followed=True))
    traces.publish_ended(PublishEnded(headers, ConnectionError("redis://me:hunter2@host is gone")))

    span = memory.one()
    assert (StatusCode.ERROR, "ConnectionError: redis://me:***@host is gone") == (span.status.status_code, span.status.description)


def test_a_publish_whose_end_nobody_tells_has_no_span() -> None:
    """
    A message of an app that is not ours carries on what is around it, and opens nothing.
    """
    traces, memory = observer()
    event, headers = started(), {"id": "id-2"}

    traces.attempt_opened(AttemptOpened(event, {"traceparent": SENT}))
    traces.publish_started(PublishStarted("other.task", "work", headers, headers))
    traces.task_finished(finished(event))

    attempt = memory.one()
    assert attempt.context is not None
    assert f"00-{TRACE}-{attempt.context.span_id:016x}-01" == headers["traceparent"]


def test_a_retry_carries_its_own_context_and_names_the_attempt_before() -> None:
    """
    What the old message carried is overwritten, and the next attempt is linked to this one.
    """
    traces, memory = observer()
    event = started()
    headers: dict[str, Any] = {"id": "id-1", "retries": 1, "traceparent": SENT, "tracestate": "old=1", PREVIOUS: SENT}
    again = started(retries=1)

    traces.attempt_opened(AttemptOpened(event, {"traceparent": SENT}))
    with_sync = SyncStarted("airbnb", "export", "outbound", "", 0.0)
    tell(traces, with_sync)  # The attempt is linked, not what it was in the middle of.
    traces.publish_started(PublishStarted("shop.sell", "work", headers, headers, is_followed=True))
    traces.publish_ended(PublishEnded(headers, None))
    tell(traces, SyncFinished(with_sync, "retry", 0.1, 0, 0, 0, 0, "", ""))
    traces.task_finished(finished(event, state="retry"))
    traces.attempt_opened(AttemptOpened(again, headers))
    traces.task_finished(finished(again))

    publish, _, first, second = memory.spans()
    assert publish.context is not None
    assert second.parent is not None
    assert "tracestate" not in headers
    assert publish.context.span_id == second.parent.span_id
    assert [first.context] == [_local(link.context) for link in second.links]


def _local(context: Any) -> Any:
    return trace.SpanContext(context.trace_id, context.span_id, False, context.trace_flags)


def test_a_child_names_no_attempt_before() -> None:
    """
    Only a retry is linked; another task that the attempt sends is its child.
    """
    traces, _ = observer()
    event, headers = started(), {"id": "id-2", "retries": 0, PREVIOUS: SENT}

    traces.attempt_opened(AttemptOpened(event, {}))
    traces.publish_started(PublishStarted("shop.more", "work", headers, headers, is_followed=True))
    traces.publish_ended(PublishEnded(headers, None))
    traces.task_finished(finished(event))

    assert PREVIOUS not in headers


@pytest.mark.parametrize("light", [True, False], ids=["our provider", "the user's provider"])
def test_baggage_goes_with_the_message_to_the_task_and_further(light: bool) -> None:
    """
    What a publisher outside of any trace has in its baggage, the task has, and what the task publishes.
    """
    traces, _ = observer(Memory(light=light))
    headers: dict[str, Any] = {"id": "id-1"}
    token = contexts.attach(baggage.set_baggage("tenant", "7"))
    traces.publish_started(PublishStarted("shop.sell", "work", headers, headers, is_followed=True))
    inside = baggage.get_all()
    traces.publish_ended(PublishEnded(headers, None))
    contexts.detach(token)
    event, further = started(), {"id": "id-2"}

    traces.attempt_opened(AttemptOpened(event, headers))
    seen = baggage.get_all()
    traces.publish_started(PublishStarted("shop.more", "work", further, further, is_followed=True))
    traces.publish_ended(PublishEnded(further, None))
    traces.task_finished(finished(event))

    assert ("tenant=7", {"tenant": "7"}, {"tenant": "7"}, "tenant=7") == (headers["baggage"], inside, seen, further["baggage"])


def test_what_the_main_process_publishes_follows_the_message_itself() -> None:
    """
    A retry of a lost attempt is published where nothing is current, and stays in the trace that its headers name.
    """
    traces, memory = observer()
    headers: dict[str, Any] = {"id": "id-1", "retries": 1, "traceparent": SENT}

    traces.publish_started(PublishStarted("shop.sell", "work", headers, headers, is_followed=True))
    traces.publish_ended(PublishEnded(headers, None))

    context = memory.one().context
    assert context is not None
    assert int(TRACE, 16) == context.trace_id


def test_a_sync_and_its_calls_lie_below_their_attempt() -> None:
    """
    The run is the attempt's child, and the call the run's.
    """
    traces, memory = observer()
    event, run = started(), SyncStarted("airbnb", "export", "outbound", "conn-1", 0.0)

    traces.attempt_opened(AttemptOpened(event, {}))
    tell(traces, run)
    tell(traces, ApiCallFinished("airbnb", "/listings/{id}", "GET", "503", 0.25, "server_error", "conn-1"))
    tell(traces, SyncFinished(run, "failure", 1.0, 1, 2, 3, 4, "ApiError", "hunter2"))
    traces.task_finished(finished(event))

    call, sync, attempt = memory.spans()
    assert call.parent is not None
    assert sync.parent is not None
    assert call.end_time is not None
    assert call.start_time is not None
    assert (sync.context, attempt.context) == (call.parent, sync.parent)
    assert ("GET /listings/{id}", 250_000_000) == (call.name, call.end_time - call.start_time)
    assert (503, "server_error", StatusCode.ERROR) == (
        attributes_of(call)["http.response.status_code"],
        attributes_of(call)["error.type"],
        call.status.status_code,
    )
    assert ("ApiError: ***", 3) == (sync.status.description, attributes_of(sync)["channel.records.failed"])


@given(
    st.dictionaries(
        st.sampled_from(["traceparent", "tracestate", "baggage", PREVIOUS, "headers", "hostname", "delivery_info"]),
        st.one_of(
            st.text(max_size=80),
            st.none(),
            st.integers(),
            st.binary(max_size=9),
            st.just(SENT),
            st.dictionaries(st.text(max_size=12), st.text(max_size=9)),
        ),
    )
)
def test_anybodys_headers_make_a_span_and_never_an_error(carrier: dict[str, Any]) -> None:
    """
    Whatever a message says, its attempt has one span and its context is undone.
    """
    traces, memory = observer()
    event = started(retries=1)
    before = contexts.get_current()

    traces.attempt_opened(AttemptOpened(event, carrier))
    traces.task_finished(finished(event))

    assert (1, before) == (len(memory.spans()), contexts.get_current())


def test_what_is_sent_for_a_lost_attempt_is_in_its_trace() -> None:
    """
    An errback's message says nothing of a trace, but the lost attempt's did.
    """
    traces, memory = observer()
    headers: dict[str, Any] = {"id": "id-2", "parent_id": "id-1"}

    traces.publish_started(PublishStarted("shop.mend", "work", headers, headers, is_followed=True, origin={"traceparent": SENT}))
    traces.publish_ended(PublishEnded(headers, None))

    parent = memory.one().parent
    assert parent is not None
    assert (int(TRACE, 16), int(SPAN, 16)) == (parent.trace_id, parent.span_id)
