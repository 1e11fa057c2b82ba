"""
Which numbers the events of providers change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.recorder.series import SeriesWriter

from .events import DataPointsProcessed
from .metrics import DATA_POINTS


__all__ = ["Recording"]


class Recording:
    """
    The numbers of providers.
    """

    def __init__(self, recorder: Any, attempts: Any) -> None:
        self._points = SeriesWriter(recorder, DATA_POINTS)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that count, each with what counts it.
        """
        return [(DataPointsProcessed, self._processed)]

    def _processed(self, event: DataPointsProcessed) -> None:
        self._points.inc((event.provider, event.kind, event.status), event.number)
