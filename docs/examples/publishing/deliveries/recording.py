"""
Which numbers the events of deliveries change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.recorder.series import SeriesWriter

from .events import AlertDelivered, PublicationDelivered
from .metrics import DELIVERIES, LATENCY


__all__ = ["Recording"]


class Recording:
    """
    The numbers of deliveries.
    """

    def __init__(self, recorder: Any, attempts: Any) -> None:
        self._deliveries = SeriesWriter(recorder, DELIVERIES)
        self._latency = SeriesWriter(recorder, LATENCY)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that count, each with what counts it.
        """
        return [(PublicationDelivered, self._deliveries.count), (AlertDelivered, self._delivered)]

    def _delivered(self, event: AlertDelivered) -> None:
        self._latency.observe((event.channel,), max(event.seconds, 0.0))  # The clock of who created it may be ahead.
