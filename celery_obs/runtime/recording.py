"""
The metrics observer: which numbers each event changes, as every area says of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.areas import left_out_if_broken, parts
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder


__all__ = ["MetricsObserver"]


class MetricsObserver:
    """
    Turn events into numbers.

    Args:
        recorder: Knows where the numbers lie.

        attempts: Counts starts and outcomes.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, *, attempts: AttemptMeter) -> None:
        self._subscriptions: list[tuple[type, Callable[[Any], object]]] = []
        for area, part in parts("recording"):
            with left_out_if_broken(area, "recording"):
                self._subscriptions += part.Recording(recorder, attempts).subscriptions()

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return self._subscriptions
