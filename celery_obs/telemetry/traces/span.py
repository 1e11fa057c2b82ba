"""
Our own span: what OpenTelemetry's API asks of one, at a fraction of the cost of the SDK's.

An attempt of a task that does nothing is over in 20 microseconds, and the SDK's span alone would take twice that: it copies and checks every attribute
that it is given.  Here what we say ourselves is taken as it is, and only what others add is looked at.
It is made by a provider of ours only; where the program has one of its own, the SDK makes the spans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode

from .raised import exception_attributes


__all__ = ["LightSpan", "Surroundings"]


_PLAIN: Final = frozenset({str, int, float, bool})
_UNSET: Final = Status(StatusCode.UNSET)
_MOST: Final = 128
_LONGEST: Final = 8192


class Surroundings:
    """
    What all spans of a provider have in common.

    Args:
        processor: Hears of spans that begin and end.

        resource: Who makes them.

        scope: Which library makes them.

        limits: The user's, from the environment; where they set none, ours are in force.

        redact: Takes secrets out of the texts of exceptions.
    """

    __slots__ = ("attributes", "events", "length", "links", "on_end", "on_start", "redact", "resource", "scope")

    def __init__(
        self,
        *,
        processor: SpanProcessor,
        resource: Resource,
        scope: InstrumentationScope,
        limits: SpanLimits,
        redact: Callable[[str], str],
    ) -> None:
        self.on_start = processor.on_start
        self.on_end = processor.on_end
        self.resource = resource
        self.scope = scope
        self.redact = redact
        self.attributes = _or(limits.max_span_attributes, _MOST)
        self.length = _or(limits.max_span_attribute_length, _LONGEST)
        self.events = _or(limits.max_events, _MOST)
        self.links = _or(limits.max_links, _MOST)


def _or(limit: int | None, ours: int) -> int:
    return ours if limit is None else limit


class LightSpan(Span):
    """
    A span that is recorded.

    Args:
        around: What all spans of its provider have in common.

        name, kind, context, parent, attributes, links, start_time: As OpenTelemetry has them.  The attributes are kept, not copied, and not checked.

    Threads: what others add in another thread is safe under the GIL.
    """

    def __init__(
        self,
        around: Surroundings,
        name: str,
        kind: SpanKind,
        *,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: dict[str, Any],
        links: Sequence[Link],
        start_time: int,
    ) -> None:
        self._around = around
        self._name = name
        self._kind = kind
        self._context = context
        self._parent = parent
        self._links = links
        self._start_time = start_time
        self._status = _UNSET
        self._events: Sequence[Event] = ()
        self._ended = False
        self.own_attributes = attributes
        """
        The attributes, for us to add to: what is put here is not checked.
        """

    def get_span_context(self) -> SpanContext:
        """
        Return its identity.
        """
        return self._context

    def is_recording(self) -> bool:
        """
        Tell whether it has not ended.
        """
        return not self._ended

    def update_name(self, name: str) -> None:
        """
        Call it *name*.
        """
        if not self._ended:
            self._name = name

    def set_attribute(self, key: str, value: Any) -> None:
        """
        Say one thing of it.
        """
        if not self._ended and key and (key in self.own_attributes or len(self.own_attributes) < self._around.attributes):
            self.own_attributes[key] = self._clean(value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """
        Say several things of it.
        """
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """
        Say what happened in it.
        """
        if self._ended or len(self._events) >= self._around.events:
            return
        cleaned = {key: self._clean(value) for key, value in attributes.items()} if attributes else None
        self._events = (*self._events, Event(name, cleaned, timestamp))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """
        Name a span that it has to do with.
        """
        if not self._ended and context.is_valid and len(self._links) < self._around.links:
            self._links = (*self._links, Link(context, {key: self._clean(value) for key, value in (attributes or {}).items()}))

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """
        Say how it went.  A status of OK, once set, stays.
        """
        found = status if isinstance(status, Status) else Status(status, description)
        if not self._ended and self._status.status_code is not StatusCode.OK and found.status_code is not StatusCode.UNSET:
            self._status = found

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 -- the API's signature.
    ) -> None:
        """
        Say that *exception* was raised in it.
        """
        event_attributes = {**exception_attributes(exception, self._around.redact), "exception.escaped": str(escaped), **(attributes or {})}
        self.add_event("exception", event_attributes, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """
        Be over; a second time changes nothing.
        """
        if self._ended:
            return
        self._ended = True
        around = self._around
        around.on_end(
            ReadableSpan(  # By place, as celery_obs.compat.opentelemetry.SPAN_ARGUMENTS has it.
                self._name,
                self._context,
                self._parent,
                around.resource,
                self.own_attributes,
                self._events,
                self._links,
                self._kind,
                None,
                self._status,
                self._start_time,
                time_ns() if end_time is None else end_time,
                around.scope,
            )
        )

    def _clean(self, value: Any) -> Any:
        """
        Return what can be sent for *value*, which may be of any type.
        """
        kind = type(value)
        if kind is str:
            return value[: self._around.length]
        if kind in _PLAIN:
            return value
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            return tuple(self._clean(item) if type(item) in _PLAIN else str(item)[: self._around.length] for item in value[:_MOST])
        return str(value)[: self._around.length]
