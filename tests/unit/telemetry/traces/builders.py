"""
Spans without a collector: an observer whose spans stay in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler

from celery_obs.areas.tasks.events import TaskFinished, TaskStarted
from celery_obs.telemetry.traces.broker import Broker
from celery_obs.telemetry.traces.configuration import Batching, Plan
from celery_obs.telemetry.traces.observer import TraceObserver
from celery_obs.telemetry.traces.provider import LightMaker, Maker, SdkMaker, Tracing


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"


class Memory(Tracing):
    """
    Tracing into memory, with light spans or with the SDK's.
    """

    def __init__(self, *, sampler: Sampler | None = None, light: bool = True) -> None:
        super().__init__(Plan((), Batching(), ()), lambda _: None, service="tested", redact=redact)
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler or ParentBased(ALWAYS_ON), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracer = provider.get_tracer("tested")
        self.made: Maker = LightMaker(tracer, redact) if light else SdkMaker(tracer)

    def maker(self, *, runs_tasks: bool = False) -> Maker | None:
        return self.made

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def one(self) -> ReadableSpan:
        (span,) = self.spans()
        return span


def redact(text: str) -> str:
    return text.replace("hunter2", "***")


def observer(tracing: Memory | None = None) -> tuple[TraceObserver, Memory]:
    """
    Return an observer and where its spans are.
    """
    found = tracing or Memory()
    return TraceObserver(found, broker=Broker("redis", "localhost", 6379), redact=redact, leave=lambda *_: None), found


def tell(traces: TraceObserver, event: Any) -> None:
    """
    Tell an event to what hears it.
    """
    dict(traces.subscriptions())[type(event)](event)


def started(**changes: Any) -> TaskStarted:
    usual = {
        "task": "shop.sell",
        "queue": "work",
        "task_id": "id-1",
        "retries": 0,
        "started_at": 1000.0,
        "wait": None,
        "clock_skewed": False,
        "due_at": None,
    }
    return TaskStarted(**{**usual, **changes})


def finished(event: TaskStarted, **changes: Any) -> TaskFinished:
    usual = {"state": "success", "runtime": 0.5, "latency": None, "exception": "", "exhausted": False, "entry": ""}
    return TaskFinished(event, **{**usual, **changes})


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})
