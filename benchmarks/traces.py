"""
Traces: what they add to one traced task, beside OpenTelemetry's own instrumentation of Celery.

Celery's own tracer runs a task that does nothing, with a request as a pool child gets it from a publisher that traces, too.
Spans go through a batch to an exporter that throws them away, so that a collector's speed is not in it; the thread that empties the batch is.
"""

from __future__ import annotations

import contextlib
import time

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import celery

from celery import signals
from celery.app.trace import build_tracer
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler

from celery_obs.areas.tasks.events import AttemptOpened, TaskFinished
from celery_obs.runtime.apps import Apps
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.publishing import Publishing
from celery_obs.runtime.signals import Receivers, connect, disconnect
from celery_obs.runtime.translate import QueueNames
from celery_obs.telemetry.redaction import Redactor
from celery_obs.telemetry.traces.broker import broker
from celery_obs.telemetry.traces.configuration import Batching, Plan
from celery_obs.telemetry.traces.observer import TraceObserver
from celery_obs.telemetry.traces.pipeline import Health, Pipeline
from celery_obs.telemetry.traces.provider import LightMaker, Maker, Tracing

from . import stack
from .harness import Limit, Report, in_turns, unchanged
from .hooks import MICRO, TASK, request


_SENT: Final = f"00-{'4bf92f3577b34da6a3ce929d0e0e4736'}-{'00f067aa0ba902b7'}"


class _Nowhere(SpanExporter):
    """
    Throws spans away.
    """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """
        Take them.
        """
        return SpanExportResult.SUCCESS


class _Traced(Tracing):
    """
    Tracing with a given sampler and no collector.
    """

    def __init__(self, sampler: Sampler) -> None:
        redact = Redactor().text
        super().__init__(Plan((), Batching(), ()), lambda _: None, service="bench", redact=redact)
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(Pipeline(lambda _: _Nowhere(), batching=Batching(), on_drop=lambda *_: None, health=Health()))
        self._made = LightMaker(provider.get_tracer("bench"), redact)

    def maker(self, *, runs_tasks: bool = False) -> Maker | None:
        """
        Return what makes spans.
        """
        return self._made


def _observed(sampler: Sampler) -> Callable[[], Any]:
    """
    Return a context manager factory: our receivers, with traces and nothing else.
    """
    redact = Redactor().text
    traces = TraceObserver(_Traced(sampler), broker=broker("redis://localhost:6379/0"), redact=redact, leave=lambda *_: None)
    return _receiving(traces.subscriptions())


def _deaf() -> Callable[[], Any]:
    """
    Return a context manager factory: our receivers and the events that traces need, without an observer that uses them.
    """
    return _receiving([(AttemptOpened, lambda _: None), (TaskFinished, lambda _: None)])


def _receiving(subscriptions: Iterable[tuple[type, Callable[[Any], object]]]) -> Callable[[], Any]:
    hub = Hub(on_error=stack.raise_error)
    for event_type, hear in subscriptions:
        hub.subscribe(event_type, hear)
    receivers = Receivers(hub, queues=QueueNames(list), lifecycle=stack.NoLifecycle(), publishing=Publishing(hub, Apps()))

    @contextlib.contextmanager
    def connected() -> Iterator[None]:
        connect(receivers)
        try:
            yield
        finally:
            disconnect()

    return connected


def _instrumented(sampler: Sampler) -> Callable[[], Any]:
    """
    Return a context manager factory: OpenTelemetry's instrumentation.
    """
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))

    @contextlib.contextmanager
    def connected() -> Iterator[None]:
        CeleryInstrumentor().instrument(tracer_provider=provider)
        try:
            yield
        finally:
            CeleryInstrumentor().uninstrument()

    return connected


def measure(*, quick: bool) -> Report:
    """
    Measure every variant on one tracer.
    """
    app = celery.Celery("bench", broker="memory://", set_as_current=True)
    task = app.task(name=TASK, ignore_result=True)(_noop)
    app.finalize()
    run = build_tracer(task.name, app.tasks[task.name], app=app)
    batch, rounds = (200, 3) if quick else (1500, 60)
    on, off = ParentBased(ALWAYS_ON), ParentBased(ALWAYS_OFF)
    variants: dict[str, Callable[[], float]] = {
        "no receivers": _timed(run, unchanged, batch, f"{_SENT}-01"),
        "two empty receivers": _timed(run, lambda: stack.empty_pair(signals.task_prerun, signals.task_postrun), batch, f"{_SENT}-01"),
        "our receivers and events alone": _timed(run, _deaf(), batch, f"{_SENT}-01"),
        "celery_obs, all recorded": _timed(run, _observed(on), batch, f"{_SENT}-01"),
        "stock, all recorded": _timed(run, _instrumented(on), batch, f"{_SENT}-01"),
        "celery_obs, sampled out by its publisher": _timed(run, _observed(on), batch, f"{_SENT}-00"),
        "stock, sampled out by its publisher": _timed(run, _instrumented(on), batch, f"{_SENT}-00"),
        "celery_obs, sampled out here": _timed(run, _observed(off), batch, None),
        "stock, sampled out here": _timed(run, _instrumented(off), batch, None),
    }
    taken = in_turns(variants, rounds=rounds)
    base = "no receivers"
    empty = taken.above("two empty receivers", base)
    added = {name: taken.above(name, base) for name in variants}
    return Report(
        name="traces",
        title="prerun + postrun on a traced no-op task, with traces and nothing else",
        columns=("variant", "task, median µs", "task, min µs", "added, median µs", "added, min µs", "times empty"),
        rows=[taken.costs(name, base=base, unit=empty) for name in variants],
        limits=[
            Limit(what="added, all recorded", measured=added["celery_obs, all recorded"], bound=35.0, unit="µs"),
            Limit(
                what="added, sampled out by its publisher",
                measured=added["celery_obs, sampled out by its publisher"],
                bound=10.0,
                unit="µs",
            ),
            Limit(what="added, sampled out here", measured=added["celery_obs, sampled out here"], bound=10.0, unit="µs"),
            Limit(
                what="all recorded, as a multiple of the stock instrumentation",
                measured=added["celery_obs, all recorded"] / added["stock, all recorded"],
                bound=1.0,
                unit="times",
            ),
        ],
        notes=[f"{rounds} rounds of {batch} tasks a variant; batch export to an exporter that throws spans away."],
        samples=taken.taken,
    )


def _noop() -> None:
    """
    Do nothing, so that what is around it shows.
    """


def _timed(run: Any, connected: Callable[[], Any], batch: int, sent: str | None) -> Callable[[], float]:
    """
    Return what measures one batch with these receivers connected, in microseconds a task.
    """

    def measured() -> float:
        requests = [request(number, time.time() - 0.02) for number in range(batch)]
        if sent is not None:
            for facts in requests:
                facts["traceparent"] = sent
        with connected():
            began = time.perf_counter()
            for facts in requests:
                run(facts["id"], (), {}, facts)
            return (time.perf_counter() - began) / batch * MICRO

    return measured
