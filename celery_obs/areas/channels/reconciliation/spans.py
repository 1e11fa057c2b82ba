"""
Spans of reconciliations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from celery_obs.telemetry.traces.limits import LONGEST

from .events import ReconciliationEnded, ReconciliationStarted


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
        return ((ReconciliationStarted, self._started), (ReconciliationEnded, self._ended))

    def _started(self, event: ReconciliationStarted) -> None:
        attributes = {"channel.type": event.channel_type, "channel.connection_id": event.connection_id[:LONGEST]}
        self._traces.begin(event, f"reconcile {event.channel_type}", attributes)

    def _ended(self, event: ReconciliationEnded) -> None:
        self._traces.finish(
            event.started, {"channel.days.checked": event.checked, "channel.days.drifted": event.drifted}, error=event.error
        )
