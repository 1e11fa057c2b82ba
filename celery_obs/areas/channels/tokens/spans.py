"""
Spans of token refreshes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from celery_obs.telemetry.traces.limits import LONGEST

from .events import TokenRefreshEnded, TokenRefreshStarted


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
        return ((TokenRefreshStarted, self._started), (TokenRefreshEnded, self._ended))

    def _started(self, event: TokenRefreshStarted) -> None:
        attributes = {"channel.type": event.channel_type, "channel.connection_id": event.connection_id[:LONGEST]}
        self._traces.begin(event, f"refresh_token {event.channel_type}", attributes)

    def _ended(self, event: TokenRefreshEnded) -> None:
        error = "" if event.status == "held_back" else event.error
        self._traces.finish(event.started, {"channel.refresh_status": event.status}, error=error)
