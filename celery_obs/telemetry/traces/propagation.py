"""
From one process to the next: the context of a trace in the headers of a message.

It lies at the top level of the headers, where OpenTelemetry's own instrumentation puts it, so that the two understand each other.
What is read is unchecked text.
"""

from __future__ import annotations

import re

from collections.abc import Mapping, MutableMapping
from typing import Any, Final, NamedTuple

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)


__all__ = ["PREVIOUS", "UNKNOWN", "Incoming", "Propagation", "previous", "with_span", "written"]


PREVIOUS: Final = "celery_obs_previous"
"""
The header in which a retry names the attempt that asked for it.
"""

_NOWHERE: Final = Context()
_KEY: Final = next(iter(set_span_in_context(INVALID_SPAN, _NOWHERE)))
"""
What the current span lies under in a context: to make one with it is a third of the cost of adding it to an empty one.
"""

_new = tuple.__new__  # Half the cost of a named tuple's own constructor, which is a Python function.
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED: Final = frozenset({"00", "02"})  # The second says, too, that the trace's id is random.
_USUAL: Final = frozenset({"traceparent", "tracestate", "baggage"})
_PARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_LONGEST: Final = 8192


class Incoming(NamedTuple):
    """
    Where a message comes from.

    Attributes:
        context: To go on in.

        span: The span that sent it; one without identity where that is not known.

        is_unsampled: Whether it is not recorded.
    """

    context: Context
    span: Span
    is_unsampled: bool


class _Unsampled(NonRecordingSpan):
    """
    A span that is not recorded, read out of its header on demand, which is seldom.
    """

    def __init__(self, header: str) -> None:
        self._header = header

    def get_span_context(self) -> SpanContext:
        return _context_of(self._header)


class _Headers(Getter[Mapping[str, Any]]):
    """
    Read texts out of headers, or out of the attributes of the request that Celery made of them, which may nest what others added.
    """

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        if value is None:
            nested = carrier.get("headers")
            value = nested.get(key) if isinstance(nested, Mapping) else None
        return [value] if type(value) is str and len(value) <= _LONGEST else None

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return list(carrier)


_HEADERS: Final = _Headers()
UNKNOWN: Final = Incoming(_NOWHERE, INVALID_SPAN, is_unsampled=False)
"""
Where a message comes from that says nothing of it: this one object, always.
"""


class Propagation:
    """
    Write and read headers, in the format that the program is set to (``OTEL_PROPAGATORS``).
    """

    def __init__(self) -> None:
        propagator = propagate.get_global_textmap()
        self._propagator = propagator
        self._fields = frozenset(propagator.fields)
        self._is_usual = self._fields == _USUAL

    def incoming(self, carrier: Mapping[str, Any]) -> Incoming:
        """
        Read where a message comes from.
        """
        header = carrier.get("traceparent")
        if not self._is_usual or "baggage" in carrier or "tracestate" in carrier:
            return self._read(carrier)
        if header is None:
            return self._read(carrier) if carrier.get("headers") else UNKNOWN
        found = _PARENT.fullmatch(header) if type(header) is str else None
        if found is None:
            return self._read(carrier)
        span: Span
        if found[3] in _UNSAMPLED:
            span = _Unsampled(header)
            return _new(Incoming, (Context({_KEY: span}), span, True))
        flags = int(found[3], 16)
        if not flags & TraceFlags.SAMPLED:
            return self._read(carrier)
        sampled = _SAMPLED if flags == TraceFlags.SAMPLED else TraceFlags(flags)
        span = NonRecordingSpan(SpanContext(int(found[1], 16), int(found[2], 16), True, sampled))  # noqa: FBT003 -- a positional argument there.
        return _new(Incoming, (Context({_KEY: span}), span, False))

    def _read(self, carrier: Mapping[str, Any]) -> Incoming:
        context = self._propagator.extract(carrier, _NOWHERE, _HEADERS)
        span = get_current_span(context)
        identity = span.get_span_context()
        return Incoming(context, span, identity.is_valid and not identity.trace_flags & TraceFlags.SAMPLED)

    def write(self, headers: MutableMapping[str, Any], context: Context) -> None:
        """
        Write *context* into the headers of a message, over what an attempt before left there.
        """
        if headers.get("retries"):
            for name in self._fields:
                headers.pop(name, None)
        self._propagator.inject(headers, context)


def with_span(span: Span, context: Context) -> Context:
    """
    Return *context* with *span* as the current one.
    """
    return Context({**context, _KEY: span}) if context else Context({_KEY: span})


def written(context: SpanContext) -> str:
    """
    Write down a span's identity.
    """
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"


def previous(carrier: Mapping[str, Any]) -> SpanContext | None:
    """
    Read which attempt asked for this one.
    """
    header = carrier.get(PREVIOUS)
    if header is None:
        nested = carrier.get("headers")
        header = nested.get(PREVIOUS) if isinstance(nested, Mapping) else None
    return _context_of(header) if type(header) is str and _PARENT.fullmatch(header) else None


def _context_of(header: str) -> SpanContext:
    _, trace, span, flags = header.split("-")
    return SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(int(flags, 16)))  # noqa: FBT003 -- a positional argument there.
