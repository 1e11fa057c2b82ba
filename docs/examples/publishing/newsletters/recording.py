"""
Which numbers the events of newsletters change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.recorder.series import SeriesWriter

from .events import NewsletterDelivered
from .metrics import DELIVERIES


__all__ = ["Recording"]


class Recording:
    """
    The numbers of newsletters.
    """

    def __init__(self, recorder: Any, attempts: Any) -> None:
        self._deliveries = SeriesWriter(recorder, DELIVERIES)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that count, each with what counts it.
        """
        return [(NewsletterDelivered, self._deliveries.count)]
