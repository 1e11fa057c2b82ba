"""
Which numbers the events of conflicts change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import ConflictDetected, ConflictResolved, DoubleBookingDetected
from .metrics import DETECTED, DOUBLE_BOOKINGS, RESOLVED


__all__ = ["Recording", "channel_series"]


class Recording:
    """
    The numbers of conflicts.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._conflicts = SeriesWriter(recorder, DETECTED)
        self._resolved = SeriesWriter(recorder, RESOLVED)
        self._double_bookings = SeriesWriter(recorder, DOUBLE_BOOKINGS)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.  An event whose fields are the labels is counted as it is.
        """
        return (
            (ConflictDetected, self._conflicts.count),
            (ConflictResolved, self._resolved.count),
            (DoubleBookingDetected, self._double_bookings.count),
        )


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    yield DOUBLE_BOOKINGS, (channel,)
