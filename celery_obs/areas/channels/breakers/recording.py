"""
Which numbers the events of circuit breakers change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import CircuitChanged, CircuitRejected
from .metrics import OPEN_DURATION, REJECTIONS, TRANSITIONS


__all__ = ["Recording", "channel_series"]


class Recording:
    """
    The numbers of circuit breakers.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._transitions = SeriesWriter(recorder, TRANSITIONS)
        self._rejections = SeriesWriter(recorder, REJECTIONS)
        self._outages = SeriesWriter(recorder, OPEN_DURATION)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.  An event whose fields are the labels is counted as it is.
        """
        return ((CircuitChanged, self.circuit_changed), (CircuitRejected, self._rejections.count))

    def circuit_changed(self, event: CircuitChanged) -> None:
        """
        Count a change, and time the outage that ends with it.
        """
        self._transitions.count(event[:3])
        if event.open_for is not None:
            self._outages.observe((event.channel_type,), event.open_for)


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    for change in (("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open"), ("open", "closed")):
        yield TRANSITIONS, (channel, *change)
    yield REJECTIONS, (channel,)
    yield OPEN_DURATION, (channel,)
