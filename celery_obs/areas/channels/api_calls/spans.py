"""
Spans of API calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from celery_obs.telemetry.traces.limits import LONGEST

from .events import ApiCallFinished
from .metrics import NO_RESPONSE


if TYPE_CHECKING:
    from celery_obs.telemetry.traces.observer import TraceObserver


__all__ = ["Spans"]


class Spans:
    """
    Begin and end them.

    Args:
        traces: Makes the spans.
    """

    def __init__(self, traces: TraceObserver) -> None:
        self._traces = traces

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that begin or end a span, each with what hears it.
        """
        return ((ApiCallFinished, self._finished),)

    def _finished(self, event: ApiCallFinished) -> None:
        attributes: dict[str, Any] = {
            "channel.type": event.channel_type,
            "http.request.method": event.method,
            "url.template": event.endpoint,
        }
        if event.connection_id:
            attributes["channel.connection_id"] = event.connection_id[:LONGEST]
        if event.status_code != NO_RESPONSE:
            attributes["http.response.status_code"] = int(event.status_code)
        if event.error_type:
            attributes["error.type"] = event.error_type
        self._traces.record(f"{event.method} {event.endpoint}", attributes, duration=event.duration, error_type=event.error_type)
