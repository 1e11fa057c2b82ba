"""
Spans of sync runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from celery_obs.telemetry.traces.limits import LONGEST

from .events import SyncFinished, SyncStarted


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
        return ((SyncStarted, self._started), (SyncFinished, self._finished))

    def _started(self, event: SyncStarted) -> None:
        attributes = {"channel.type": event.channel_type, "channel.sync_type": event.sync_type, "channel.direction": event.direction}
        if event.connection_id:
            attributes["channel.connection_id"] = event.connection_id[:LONGEST]
        self._traces.begin(event, f"sync {event.channel_type} {event.sync_type}", attributes)

    def _finished(self, event: SyncFinished) -> None:
        attributes = {
            "channel.sync_status": event.status,
            "channel.records.created": event.created,
            "channel.records.updated": event.updated,
            "channel.records.failed": event.failed,
            "channel.records.skipped": event.skipped,
        }
        self._traces.finish(event.started, attributes, error=event.error if event.status == "failure" else "", message=event.error_message)
