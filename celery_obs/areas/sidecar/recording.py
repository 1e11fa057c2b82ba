"""
Which numbers the events about observation itself change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter

from .events import ObservationDropped, TelemetryDropped
from .metrics import DROPPED


__all__ = ["Recording"]


class Recording:
    """
    The numbers of what was dropped.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._dropped = SeriesWriter(recorder, DROPPED)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.  An event whose fields are the labels is counted as it is.
        """
        return ((ObservationDropped, self._dropped.count), (TelemetryDropped, self.telemetry_dropped))

    def telemetry_dropped(self, event: TelemetryDropped) -> None:
        """
        Count what will not arrive.
        """
        self._dropped.inc((event.reason,), event.number)
