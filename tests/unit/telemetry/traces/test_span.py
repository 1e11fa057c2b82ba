"""
The light span says what the SDK's would have said.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from celery_obs.telemetry.traces.span import LightSpan, Surroundings


CONTEXT = SpanContext(1, 2, False, TraceFlags(1))


def light(**limits: int) -> tuple[Span, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    around = Surroundings(
        processor=SimpleSpanProcessor(exporter),
        resource=Resource({}),
        scope=InstrumentationScope("tested"),
        limits=SpanLimits(**limits),
        redact=lambda text: text.replace("hunter2", "***"),
    )
    return LightSpan(around, "name", SpanKind.INTERNAL, context=CONTEXT, parent=None, attributes={}, links=(), start_time=1), exporter


def heavy() -> tuple[Span, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("tested").start_span("name", start_time=1), exporter


values = st.one_of(
    st.text(max_size=20), st.integers(-(2**40), 2**40), st.booleans(), st.floats(allow_nan=False), st.lists(st.integers(0, 9), max_size=3)
)
attributes = st.dictionaries(st.text(min_size=1, max_size=5), values, max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set_attributes"), st.tuples(attributes)),
        st.tuples(st.just("add_event"), st.tuples(st.text(max_size=5), attributes, st.just(7))),
        st.tuples(st.just("add_link"), st.tuples(st.just(CONTEXT), attributes)),
        st.tuples(st.just("update_name"), st.tuples(st.text(min_size=1, max_size=5))),
        st.tuples(st.just("set_status"), st.tuples(st.sampled_from([Status(code) for code in StatusCode]))),
    ),
    max_size=6,
)


@given(steps)
def test_it_says_what_the_sdks_span_says(steps: list[tuple[str, tuple[Any, ...]]]) -> None:
    """
    Whatever is done to both, they end as the same.
    """
    ends = []
    for span, exporter in (light(), heavy()):
        for name, arguments in steps:
            getattr(span, name)(*arguments)
        span.end(9)
        ends.append(facts(exporter.get_finished_spans()[0]))

    assert ends[1] == ends[0]


def facts(span: ReadableSpan) -> tuple[Any, ...]:
    return (
        span.name,
        span.start_time,
        span.end_time,
        dict(span.attributes or {}),
        [(event.name, event.timestamp, dict(event.attributes or {})) for event in span.events],
        [(link.context, dict(link.attributes or {})) for link in span.links],
        (span.status.status_code, span.status.description),
    )


def test_it_ends_once_and_changes_no_more() -> None:
    """
    What is said after the end is not said.
    """
    span, exporter = light()

    span.end()
    span.end()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.update_name("late")

    (ended,) = exporter.get_finished_spans()
    assert ("name", {}, (), False) == (ended.name, dict(ended.attributes or {}), ended.events, span.is_recording())


def test_it_is_bounded() -> None:
    """
    The user's limits hold: of attributes, their length, events and links.
    """
    span, exporter = light(max_attributes=2, max_span_attribute_length=3, max_events=1, max_links=1)

    for number in range(5):
        span.set_attribute(f"a{number}", "x" * 9)
        span.add_event("e")
        span.add_link(CONTEXT)
    span.end()

    (ended,) = exporter.get_finished_spans()
    assert ({"a0": "xxx", "a1": "xxx"}, 1, 1) == (dict(ended.attributes or {}), len(ended.events), len(ended.links))


def test_what_others_record_on_it_is_redacted() -> None:
    """
    An exception that the task's own code records has no secret in its text either, and may have a broken one.
    """

    class Broken(Exception):  # noqa: N818 -- what is broken is its text.
        def __str__(self) -> str:
            raise RuntimeError

    span, exporter = light()

    span.record_exception(ValueError("hunter2"))
    span.record_exception(Broken())
    span.end()

    first, second = (dict(event.attributes or {}) for event in exporter.get_finished_spans()[0].events)
    assert "***" == first["exception.message"]
    assert "<Broken that cannot be shown>" == second["exception.message"]
