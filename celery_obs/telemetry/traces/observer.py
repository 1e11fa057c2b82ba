"""
The trace observer: from what happens to spans.

A publish is a *producer* span, an attempt a *consumer* span and its child, however many processes later; so a chain, a chord and all retries are one trace.
What happens inside an attempt, such as syncs and API calls, lies below it.  Attributes are those of the semantic conventions for messaging where these have
one, else ``celery.…``; a span is called after its operation and its task, for a queue's name would say little of what is done.

State of an attempt lies under the identity of the event that opened it, never under a task's id: ids come back, and attempts of one id overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar, Token
from time import time_ns
from typing import Any, Final, NamedTuple

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TraceFlags

from celery_obs.areas import left_out_if_broken, parts
from celery_obs.areas.tasks.events import (
    AttemptInterrupted,
    AttemptLost,
    AttemptOpened,
    AttemptRaised,
    PublishEnded,
    PublishStarted,
    TaskFinished,
    TaskStarted,
)
from celery_obs.vocabulary.headers import CORRELATION, ENTRY, correlation_of, text

from .broker import Broker
from .limits import LONGEST
from .propagation import PREVIOUS, UNKNOWN, Incoming, Propagation, previous, with_span, written
from .provider import Tracing
from .raised import exception_attributes


__all__ = ["TraceObserver"]


_BEFORE_THE_KILL: Final = 0.04
_NANO: Final = 1_000_000_000
_new = tuple.__new__  # Half the cost of a named tuple's own constructor, which is a Python function.


_attempt: ContextVar[tuple[str, Span] | None] = ContextVar("celery_obs_attempt", default=None)
"""
The task id and the span of the attempt that this thread runs.
"""


class _Open(NamedTuple):
    """
    What was begun and has not ended.

    Attributes:
        key: What it is found by: kept, so that nothing else can have its identity.

        span: The span; None where it is not recorded.

        token: Undoes the context.
    """

    key: object
    span: Span | None
    token: Token[Context]


class TraceObserver:
    """
    Make the spans.

    Args:
        tracing: This process's.

        broker: What messages go through.

        redact: Takes secrets out of texts.

        leave: Unsubscribes what hears an event, where it turns out that there is nothing to trace with.

    Threads: safe; a context is its thread's or greenlet's own.  Forks: call `after_fork` in the child.
    """

    def __init__(
        self, tracing: Tracing, *, broker: Broker, redact: Callable[[str], str], leave: Callable[[type, Callable[[Any], object]], object]
    ) -> None:
        self._tracing = tracing
        self._unsubscribe = leave
        self._redact = redact
        self._propagation = Propagation()
        self._open: dict[int, _Open] = {}
        self._theirs: dict[int, AttemptOpened] = {}
        self._is_child = False
        self._processing: dict[str, Any] = {
            **broker.attributes,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
        }
        self._of_areas = tuple(self._subscriptions_of_areas())
        self._sending: dict[str, Any] = {**broker.attributes, "messaging.operation.name": "send", "messaging.operation.type": "send"}

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that begin, end or change a span, each with what hears it.
        """
        return (
            (AttemptOpened, self.attempt_opened),
            (AttemptRaised, self.attempt_raised),
            (TaskFinished, self.task_finished),
            (AttemptInterrupted, self.attempt_interrupted),
            (AttemptLost, self.attempt_lost),
            (PublishStarted, self.publish_started),
            (PublishEnded, self.publish_ended),
            *self._of_areas,
        )

    def _subscriptions_of_areas(self) -> Iterator[tuple[type, Callable[[Any], object]]]:
        for area, part in parts("spans"):
            with left_out_if_broken(area, "spans"):
                yield from tuple(part.Spans(self).subscriptions())

    def exemplar(self) -> int:
        """
        Return the id of the trace that this thread is in, if it is recorded; else 0.
        """
        identity = trace.get_current_span().get_span_context()
        return identity.trace_id if identity.trace_flags & TraceFlags.SAMPLED else 0

    def _leave(self) -> None:
        """
        Hear no more: this process runs tasks, and has no exporter of spans.  Not where it only publishes, for its children may have one.
        """
        for event_type, hear in self.subscriptions():
            self._unsubscribe(event_type, hear)

    def flush(self, within: float) -> None:
        """
        Have what is left sent, within so many seconds.
        """
        self._tracing.flush(within)

    def after_fork(self) -> None:
        """
        Become a child's own.
        """
        self._is_child = True
        self._open = {}
        self._theirs = {}
        self._tracing.after_fork()

    # -- attempts -------------------------------------------------------------------------------------------------------

    def attempt_opened(self, event: AttemptOpened) -> None:
        """
        Begin an attempt's span and make it the current one.
        """
        maker = self._tracing.maker(runs_tasks=True)
        if maker is None:
            self._leave()
            return
        started, carrier = event
        if self._tracing.is_stock:
            self._theirs[id(started)] = event
            self._enrich(started)
            return
        incoming = self._propagation.incoming(carrier)
        if incoming[2] and maker.drops_unsampled:
            self._open[id(started)] = _new(_Open, (started, None, contexts.attach(incoming[0])))
            return
        if incoming is UNKNOWN and maker.unrecorded is not None:
            self._open[id(started)] = _new(_Open, (started, None, contexts.attach(with_span(maker.unrecorded(), incoming[0]))))
            return
        link = previous(carrier) if started.retries else None
        span = maker.start(
            f"process {started.task}",
            SpanKind.CONSUMER,
            lambda: self._attributes_of(started, carrier),
            incoming,
            links=() if link is None else (Link(link, {"celery.link": "previous attempt"}),),
            at=int(started.started_at * _NANO),
        )
        context = with_span(span, incoming.context)
        if span.is_recording():
            _say_when_due(span, started)
            _attempt.set((started.task_id, span))
            self._open[id(started)] = _new(_Open, (started, span, contexts.attach(context)))
        else:
            self._open[id(started)] = _new(_Open, (started, None, contexts.attach(context)))

    def _attributes_of(self, started: TaskStarted, carrier: Mapping[str, Any]) -> dict[str, Any]:
        task, queue, task_id, retries, _, wait, *_ = started
        attributes = self._processing.copy()
        attributes["messaging.destination.name"] = queue
        attributes["messaging.message.id"] = task_id
        attributes["messaging.message.conversation_id"] = correlation_of(carrier)
        attributes["celery.task.name"] = task
        attributes["celery.task.retries"] = retries
        if wait is not None:
            attributes["celery.task.queue_wait"] = wait
        worker = carrier.get("hostname")
        if type(worker) is str:
            attributes["celery.worker"] = worker[:LONGEST]
        if ENTRY in carrier and (entry := text(carrier, ENTRY)):
            attributes["celery.beat.entry"] = entry
        delivery = carrier.get("delivery_info")
        if isinstance(delivery, Mapping) and delivery.get("redelivered"):
            attributes["celery.task.redelivered"] = True
        return attributes

    def attempt_raised(self, event: AttemptRaised) -> None:
        """
        Say what the body raised, while its frames are there.
        """
        started, state, error, expected = event
        span = self._span_of(started)
        if span is None or error is None:
            return
        attributes = exception_attributes(error, self._redact)
        if not self._tracing.is_stock:  # Theirs has said that.
            span.add_event("exception", attributes)
        if state == "retry":
            span.set_attribute("celery.task.retry_reason", attributes["exception.type"])
        elif not expected:
            span.set_attribute("error.type", attributes["exception.type"])
            if not self._tracing.is_stock:
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {attributes['exception.message']}"[:LONGEST]))

    def task_finished(self, event: TaskFinished) -> None:
        """
        End an attempt's span.
        """
        started, state, runtime, *_ = event
        opened = self._open.pop(id(started), None)
        if opened is None:
            if self._tracing.is_stock:
                self._finish_theirs(started, state)
            return
        contexts.detach(opened.token)
        span = opened.span
        if span is None:
            return
        _attempt.set(None)
        attributes = getattr(span, "said", None)
        if attributes is not None:
            attributes["celery.task.state"] = state
        else:
            span.set_attribute("celery.task.state", state)
        if event.exhausted:
            span.set_attribute("celery.task.exhausted", True)  # noqa: FBT003 -- the API's signature.
        span.end(int((started.started_at + runtime) * _NANO))

    def attempt_interrupted(self, event: AttemptInterrupted) -> None:
        """
        Leave the context of an attempt that is being unwound.  Its span is the main process's to make; what ended below it is sent while there is time.
        """
        self._theirs.pop(id(event.started), None)
        opened = self._open.pop(id(event.started), None)
        if opened is not None:
            _attempt.set(None)
            contexts.detach(opened.token)
        if self._is_child:
            self._tracing.flush(_BEFORE_THE_KILL, is_last=False)

    def attempt_lost(self, event: AttemptLost) -> None:
        """
        Make the span of an attempt that came to no end of its own.
        """
        maker = self._tracing.maker()
        if maker is None:
            return
        incoming = self._propagation.incoming(event.carrier)
        now = time_ns()
        began = now if event.started_at is None else min(now, int(event.started_at * _NANO))
        attributes = {
            **self._processing,
            "messaging.destination.name": event.queue,
            "messaging.message.id": event.task_id,
            "messaging.message.conversation_id": correlation_of(event.carrier),
            "celery.task.name": event.task,
            "celery.task.retries": event.retries,
            "celery.task.state": event.state,
            "error.type": event.exception,
        }
        link = previous(event.carrier) if event.retries else None
        links = () if link is None else (Link(link, {"celery.link": "previous attempt"}),)
        span = maker.start(f"process {event.task}", SpanKind.CONSUMER, lambda: attributes, incoming, links=links, at=began)
        if span.is_recording():
            message = self._redact(event.message)
            span.add_event("exception", {"exception.type": event.exception, "exception.message": message}, now)
            span.set_status(Status(StatusCode.ERROR, message[:LONGEST]))
            span.end(now)

    # -- where OpenTelemetry's own instrumentation makes the spans --------------------------------------------------------

    def _enrich(self, started: TaskStarted) -> None:
        """
        Add what we know to their span, at the attempt's beginning or its end: which of the two it is depends on who was connected first.
        """
        span = self._span_of(started)
        if span is not None and (event := self._theirs.pop(id(started), None)) is not None:
            span.set_attributes(self._attributes_of(started, event.carrier))
            _say_when_due(span, started)

    def _finish_theirs(self, started: TaskStarted, state: str) -> None:
        self._enrich(started)
        self._theirs.pop(id(started), None)
        span = self._span_of(started)
        if span is not None:
            span.set_attribute("celery.task.state", state)

    def _span_of(self, started: TaskStarted) -> Span | None:
        if self._tracing.is_stock:
            span = trace.get_current_span()
            return span if span.is_recording() and getattr(span, "name", "") == f"run/{started.task}" else None
        opened = self._open.get(id(started))
        return None if opened is None else opened.span

    # -- messages -------------------------------------------------------------------------------------------------------

    def publish_started(self, event: PublishStarted) -> None:
        """
        Begin a message's span, make it the current one and write it into the message.
        """
        task, queue, headers, message, is_followed, origin = event
        maker = self._tracing.maker()
        if maker is None or self._tracing.is_stock:
            return
        context = contexts.get_current()
        current = trace.get_current_span(context)
        if current.get_span_context().is_valid:
            incoming = Incoming(context, current, is_unsampled=False)
            _name_attempt(headers, message)
        else:  # As in a worker's main process, which publishes for attempts that are lost: the message may say itself what it belongs to.
            incoming = self._propagation.incoming(headers)
            if origin is not None and not incoming.span.get_span_context().is_valid:
                incoming = self._propagation.incoming(origin)
            # What else is current, such as baggage, goes on.
            context = Context({**context, **incoming.context}) if context else incoming.context
        if not is_followed:
            self._propagation.write(headers, context)  # Nothing would end a span; what is around it goes on all the same.
            return
        attributes = self._sending.copy()
        attributes["messaging.destination.name"] = queue
        attributes["messaging.message.id"] = str(message.get("id") or "")
        attributes["messaging.message.conversation_id"] = text(headers, CORRELATION) or correlation_of(message)
        attributes["celery.task.name"] = task
        attributes["celery.task.retries"] = message.get("retries") or 0
        if ENTRY in headers and (entry := text(headers, ENTRY)):
            attributes["celery.beat.entry"] = entry
        if (eta := message.get("eta")) is not None:
            attributes["celery.task.eta"] = str(eta)[:LONGEST]
        span = maker.start(f"send {task}", SpanKind.PRODUCER, lambda: attributes, incoming)
        context = with_span(span, context)
        self._propagation.write(headers, context)
        self._open[id(headers)] = _Open(headers, span, contexts.attach(context))

    def publish_ended(self, event: PublishEnded) -> None:
        """
        End a message's span, however it went.
        """
        headers, error = event
        opened = self._open.pop(id(headers), None)
        if opened is None:
            return
        contexts.detach(opened.token)
        span = opened.span
        if span is None:
            return
        if error is not None:
            self._broke(span, error)
        span.end()

    def _broke(self, span: Span, error: BaseException) -> None:
        if span.is_recording():
            attributes = exception_attributes(error, self._redact)
            span.add_event("exception", attributes)
            span.set_attribute("error.type", attributes["exception.type"])
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {attributes['exception.message']}"[:LONGEST]))

    # -- what happens inside, as the areas say --------------------------------------------------------------------------

    def record(self, name: str, attributes: dict[str, Any], *, duration: float, error_type: str = "") -> None:
        """
        Make the span of something that is over, such as an API call: nothing happens below it that we would know of.

        Args:
            duration: Seconds.

            error_type: Why it failed; empty where it did not.
        """
        maker = self._tracing.maker()
        if maker is None:
            return
        now = time_ns()
        began = now - int(duration * _NANO)
        span = maker.start(name, SpanKind.CLIENT, lambda: attributes, _here(), at=began)
        if error_type:
            span.set_status(Status(StatusCode.ERROR, error_type))
        span.end(now)

    def begin(self, event: object, name: str, attributes: dict[str, Any]) -> None:
        """
        Begin the span of what *event* tells the beginning of, and make it the current one.
        """
        maker = self._tracing.maker()
        if maker is None:
            return
        here = _here()
        span = maker.start(name, SpanKind.INTERNAL, lambda: attributes, here)
        self._open[id(event)] = _Open(event, span, contexts.attach(with_span(span, here.context)))

    def finish(self, started: object, attributes: Mapping[str, Any], *, error: str = "", message: str = "") -> None:
        """
        End the span that `begin` began for *started*.
        """
        opened = self._open.pop(id(started), None)
        if opened is None or opened.span is None:
            return
        contexts.detach(opened.token)
        span = opened.span
        if span.is_recording():
            span.set_attributes(attributes)
            if error:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, self._redact(f"{error}: {message}" if message else error)[:LONGEST]))
        span.end()


def _here() -> Incoming:
    """
    Go on in this thread.
    """
    context = contexts.get_current()
    return Incoming(context, trace.get_current_span(context), is_unsampled=False)


def _name_attempt(headers: MutableMapping[str, Any], message: Mapping[str, Any]) -> None:
    """
    Have a retry name the attempt that asks for it.
    """
    headers.pop(PREVIOUS, None)
    attempt = _attempt.get()
    if attempt is not None and message.get("retries") and attempt[0] == str(message.get("id")):
        headers[PREVIOUS] = written(attempt[1].get_span_context())


def _say_when_due(span: Span, started: TaskStarted) -> None:
    """
    Mark the moment at which the task was due, so that its wait is to be seen beside its work.
    """
    if started.wait is not None:
        span.add_event("celery.task.due", None, int((started.started_at - started.wait) * _NANO))
